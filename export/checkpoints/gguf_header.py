"""Reads a GGUF header by itself: sizes are checked first, and vocabularies are walked over.

The reader of the gguf package keeps every string of a vocabulary, which takes seconds, and
believes every count. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onekv.errors import CheckpointError
from onekv.export.model.shapes import Shape

Value = int | float | bool | str

_FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f"}
_FORMS |= {7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# Vocabularies have a few hundred thousand entries, models a few thousand tensors.
_MOST_ENTRIES = 2**22
_MOST_TENSORS = 2**16
_MOST_DIMS = 4
# Names have at most 65,535 bytes; longer strings than this are templates and licences.
_LONGEST_NAME = 2**16 - 1
_LONGEST_KEPT = 2**12
_ALIGNMENT = 32


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's shape in torch's order, its number in ggml's list of types, and its first byte."""

    name: str
    shape: Shape
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    """values: numbers, flags and short strings by key. lengths: how many entries an array has."""

    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]


def read_header(path: Path) -> Header:
    """Read the metadata and the list of tensors; their data stay where they are.

    Raises:
        CheckpointError: they do not fit into the file, hold a type that does not exist, or
            name something twice.
    """
    with path.open("rb") as file:
        walk = _Walk(path, file, path.stat().st_size)
        walk.skip(4)
        version = walk.number("<I")
        if version not in (2, 3):
            raise walk.corrupt(f"its version is {version}, not 2 or 3")
        tensors, entries = walk.count(_MOST_TENSORS), walk.count(_MOST_TENSORS)
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(entries):
            _entry(walk, values, lengths)
        infos = _tensors(walk, tensors)
        data = walk.aligned(values.get("general.alignment", _ALIGNMENT))
    return Header(
        values,
        lengths,
        {n: TensorInfo(n, shape, kind, data + at) for n, (shape, kind, at) in infos.items()},
    )


def _entry(walk: _Walk, values: dict[str, Value], lengths: dict[str, int]) -> None:
    key, kind = walk.name(), walk.integer("<I")
    if key in values or key in lengths:
        raise walk.corrupt(f"it has {key} twice")
    if kind == _ARRAY:
        lengths[key] = walk.skip_array(walk.integer("<I"), walk.count(_MOST_ENTRIES))
        return
    value = walk.value(kind)
    if value is not None:
        values[key] = value


def _tensors(walk: _Walk, count: int) -> dict[str, tuple[Shape, int, int]]:
    """Shape, type, and place behind the header of every tensor."""
    found: dict[str, tuple[Shape, int, int]] = {}
    for _ in range(count):
        name, dims = walk.name(), walk.integer("<I")
        if dims > _MOST_DIMS:
            raise walk.corrupt(f"a tensor has {dims} dimensions")
        if name in found:
            raise walk.corrupt(f"it has {name} twice")
        # The fastest dimension comes first in the file.
        shape = tuple(walk.integer("<Q") for _ in range(dims))[::-1]
        found[name] = shape, walk.integer("<I"), walk.integer("<Q")
    return found


@dataclass
class _Walk:
    """A file that is read front to back and never past its end."""

    path: Path
    file: BinaryIO
    size: int

    def number(self, form: str) -> int | float | bool:
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise self.corrupt("it ends within its header")
        (value,) = struct.unpack(form, data)
        return value  # type: ignore[no-any-return]

    def integer(self, form: str) -> int:
        return int(self.number(form))

    def count(self, most: int) -> int:
        value = self.integer("<Q")
        if value > most:
            raise self.corrupt(f"its header counts {value} entries")
        return value

    def name(self) -> str:
        length = self.length()
        if length > _LONGEST_NAME:
            raise self.corrupt(f"it has a name of {length} bytes")
        return self.text(length)

    def length(self) -> int:
        """The length of a string that lies within the file."""
        length = self.integer("<Q")
        if length > self.size - self.file.tell():
            raise self.corrupt("it ends within its header")
        return length

    def text(self, length: int) -> str:
        try:
            return self.file.read(length).decode()
        except UnicodeDecodeError:
            raise self.corrupt("its header has text that is not UTF-8") from None

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise self.corrupt("it ends within its header")
        self.file.seek(count, 1)

    def value(self, kind: int) -> Value | None:
        """A number or a string; None for a string that is too long to be kept."""
        if kind in _FORMS:
            return self.number(_FORMS[kind])
        if kind != _STRING:
            raise self.corrupt(f"its header has a value of type {kind}")
        length = self.length()
        if length <= _LONGEST_KEPT:
            return self.text(length)
        self.skip(length)
        return None

    def skip_array(self, kind: int, count: int) -> int:
        """How many entries the array has that was passed over."""
        if kind in _FORMS:
            self.skip(count * struct.calcsize(_FORMS[kind]))
        elif kind == _STRING:
            for _ in range(count):
                self.skip(self.integer("<Q"))
        else:
            raise self.corrupt(f"its header has an array of type {kind}")
        return count

    def aligned(self, alignment: Value) -> int:
        """Where the data begin behind a header that has been read."""
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.corrupt(f"its alignment is {alignment!r}, no power of two")
        return -(-self.file.tell() // alignment) * alignment

    def corrupt(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path.name} is truncated or no GGUF file: {why}", "Copy or download it again."
        )
