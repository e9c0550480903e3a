"""A weight file, read through coremltools' own reader with the sizes checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onekv.errors import BundleError
from onekv.runtime.mil.tools import blob_reader
from onekv.runtime.mil.values import TensorType

_DAMAGED = "The package is damaged or was changed: export the model again."
_READERS = {"FLOAT16": "fp16", "FLOAT32": "float"}


@dataclass(frozen=True)
class StoredArray:
    """An array of a weight file, read when it is used."""

    file: BlobFile
    offset: int
    kind: TensorType

    def load(self) -> NDArray[Any]:
        """The array; floats are float32."""
        return self.file.read(self.offset, self.kind)


class BlobFile:
    """Arrays by offset. Floats, which come as float32, are read once for all functions."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BundleError(f"the package lacks its weight file {path.name}", _DAMAGED)
        self.size = path.stat().st_size
        self._name, self._path = path.name, path
        self._arrays: dict[tuple[int, TensorType], NDArray[Any]] = {}

    def at(self, offset: int, kind: TensorType) -> StoredArray:
        """The array at `offset`, not read yet.

        Raises:
            BundleError: it does not lie in the file.
        """
        if not 0 <= offset <= self.size - kind.nbytes:
            raise BundleError(f"{self._name} ends before offset {offset} and its array", _DAMAGED)
        return StoredArray(self, offset, kind)

    def read(self, offset: int, kind: TensorType) -> NDArray[Any]:
        """The array at `offset`.

        Raises:
            BundleError: it is not what the program says.
        """
        key = (offset, kind)
        if kind.dtype not in _READERS:
            # Rounded weights: what is kept of them is what they are unpacked to.
            return self._load(offset, kind)
        if key not in self._arrays:
            self._arrays[key] = self._load(offset, kind)
        return self._arrays[key]

    def _load(self, offset: int, kind: TensorType) -> NDArray[Any]:
        name = _READERS.get(kind.dtype, kind.dtype.lower())
        # A reader maps the file: with one for all arrays, the whole of it would stay in memory.
        reader = blob_reader(str(self._path))
        try:
            flat = np.asarray(getattr(reader, f"read_{name}_data")(offset))
        except (AttributeError, RuntimeError) as error:
            raise BundleError(f"{self._name} at {offset}: {error}", _DAMAGED) from error
        if flat.size != kind.count:
            raise BundleError(
                f"{self._name} holds {flat.size} elements at {offset}, the program {kind.count}",
                _DAMAGED,
            )
        if kind.dtype == "FLOAT16":
            flat = flat.view(np.float16).astype(np.float32)
        array: NDArray[Any] = flat.reshape(kind.shape)
        return array
