"""Walks a GGUF header, so that no corrupt count sends its reader round for hours.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onekv.errors import CheckpointError

_FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
# Vocabularies have a few hundred thousand entries, models a few thousand tensors.
_MOST_ENTRIES = 2**22
_MOST_TENSORS = 2**16
_MOST_DIMS = 4


def check_header(path: Path) -> None:
    """Read over the metadata and the tensor list without keeping anything.

    Raises:
        CheckpointError: they do not fit into the file, or hold a type that does not exist.
    """
    with path.open("rb") as file:
        walk = _Walk(path, file, path.stat().st_size)
        walk.skip(4)
        version = walk.number("<I")
        if version not in (2, 3):
            raise walk.corrupt(f"its version is {version}, not 2 or 3")
        tensors, entries = walk.count(_MOST_TENSORS), walk.count(_MOST_TENSORS)
        for _ in range(entries):
            walk.skip_string()
            walk.skip_value(walk.number("<I"))
        for _ in range(tensors):
            walk.skip_string()
            dims = walk.number("<I")
            if dims > _MOST_DIMS:
                raise walk.corrupt(f"a tensor has {dims} dimensions")
            walk.skip(8 * dims + 4 + 8)


@dataclass
class _Walk:
    """A file that is read front to back and never past its end."""

    path: Path
    file: BinaryIO
    size: int

    def number(self, form: str) -> int:
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise self.corrupt("it ends within its header")
        return int(struct.unpack(form, data)[0])

    def count(self, most: int) -> int:
        value = self.number("<Q")
        if value > most:
            raise self.corrupt(f"its header counts {value} entries")
        return value

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise self.corrupt("it ends within its header")
        self.file.seek(count, 1)

    def skip_string(self) -> None:
        self.skip(self.number("<Q"))

    def skip_value(self, kind: int) -> None:
        if kind in _FIXED_BYTES:
            self.skip(_FIXED_BYTES[kind])
        elif kind == _STRING:
            self.skip_string()
        elif kind == _ARRAY:
            self._skip_array(self.number("<I"), self.count(_MOST_ENTRIES))
        else:
            raise self.corrupt(f"its header has a value of type {kind}")

    def _skip_array(self, kind: int, count: int) -> None:
        if kind in _FIXED_BYTES:
            self.skip(count * _FIXED_BYTES[kind])
        elif kind == _STRING:
            for _ in range(count):
                self.skip_string()
        else:
            raise self.corrupt(f"its header has an array of type {kind}")

    def corrupt(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path.name} is truncated or no GGUF file: {why}", "Copy or download it again."
        )
