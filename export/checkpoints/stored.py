"""Headers of safetensors files: every name, type, shape and place, checked, with no tensor read.

The format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onekv.errors import CheckpointError
from onekv.export.model.shapes import Shape

# The limit of the safetensors library.
_LARGEST_HEADER = 100_000_000
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_CHUNK = 16 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: `size` bytes from the file's byte `start`."""

    file: Path
    key: str
    dtype: str
    shape: Shape
    start: int
    size: int

    def same_bytes(self, other: StoredTensor) -> bool:
        """Whether both hold the same values in the same type, bit by bit."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        return all(ours == theirs for ours, theirs in zip(self._chunks(), other._chunks()))

    def _chunks(self) -> Iterator[bytes]:
        with self.file.open("rb") as file:
            file.seek(self.start)
            for done in range(0, self.size, _CHUNK):
                yield file.read(min(_CHUNK, self.size - done))


def read_header(path: Path) -> dict[str, StoredTensor]:
    """All tensors of a safetensors file by name.

    Raises:
        CheckpointError: the file is truncated or corrupt, or holds weights of a type that
            onekv does not read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise _corrupt(path, f"{size} bytes cannot hold a header of {length}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    tensors = {key: _tensor(path, key, entry, 8 + length) for key, entry in header.items()}
    _check_places(path, tensors, 8 + length, size)
    return tensors


def _tensor(path: Path, key: str, entry: Any, data: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise _corrupt(path, f"the entry of {key} is not dtype, shape, data_offsets") from error
    if not isinstance(shape, list) or not all(_is_size(n) for n in [*shape, begin, end]):
        raise _corrupt(path, f"{key} has a shape or an offset that is no whole number")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise CheckpointError(
            f"{path.name}: {key} has type {dtype!r}",
            f"onekv reads weights of the types {', '.join(_ITEM_BYTES)}; use the checkpoint as it "
            "was before quantisation.",
        )
    size = math.prod(shape) * _ITEM_BYTES[dtype]
    if end - begin != size:
        raise _corrupt(path, f"{key} needs {size} bytes and has {end - begin}")
    return StoredTensor(path, key, dtype, tuple(shape), data + begin, size)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _check_places(path: Path, tensors: dict[str, StoredTensor], data: int, size: int) -> None:
    """The tensors fill the file without a gap or an overlap, as the format demands."""
    place = data
    for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.size)):
        if tensor.start != place:
            raise _corrupt(path, f"{tensor.key} begins at byte {tensor.start}, not {place}")
        place += tensor.size
    if place != size:
        raise _corrupt(path, f"the file has {size} bytes, its tensors need {place}")


def _corrupt(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is truncated or no safetensors file: {why}", "Copy or download it again."
    )
