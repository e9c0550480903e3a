"""How each weight of a package is stored: its type, bits, and what shares a scale or a palette."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from onekv.runtime.mil.blobs import StoredArray
from onekv.runtime.mil.package import Constant, Function, Operation, Package


@dataclass(frozen=True)
class StoredWeight:
    """One array of a weight file, with its scales or palettes.

    stored: the type in the file, such as fp16, int8, int4, or palette. bits: of one element.
    granularity: "row", "block" or "palette", None for floats. group: the columns that share a
    scale, or the rows that share a palette. bytes: scales and palettes included.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    bits: int
    granularity: str | None
    group: int | None
    bytes: int

    @property
    def parameters(self) -> int:
        """How many numbers it is."""
        return prod(self.shape)


def stored_weights(package: Package) -> tuple[StoredWeight, ...]:
    """Every weight once, in the order of the functions that use them."""
    found: dict[StoredArray, StoredWeight] = {}
    for function in package.functions.values():
        for array, weight in _weights(function):
            found.setdefault(array, weight)
    return tuple(found.values())


def _weights(function: Function) -> Iterator[tuple[StoredArray, StoredWeight]]:
    for operation in function.operations:
        key = _INTEGERS.get(operation.kind)
        array = _constant(operation, key) if key else None
        if isinstance(array, StoredArray):
            yield array, _compressed(operation, array)
    for name, value in function.constants.items():
        # Integers outside of a constant expression are positions, not weights.
        if isinstance(value, StoredArray) and value.kind.dtype.startswith("FLOAT"):
            kind = value.kind
            stored = kind.dtype.lower().replace("float", "fp")
            yield value, StoredWeight(name, kind.shape, stored, kind.bits, None, None, kind.nbytes)


_INTEGERS = {"constexpr_blockwise_shift_scale": "data", "constexpr_lut_to_dense": "indices"}


def _compressed(operation: Operation, array: StoredArray) -> StoredWeight:
    """`array` are integers, or indices into palettes."""
    kind, (name, _) = array.kind, operation.outputs[0]
    rows, columns = kind.shape[:2]
    scales = operation.kind == "constexpr_blockwise_shift_scale"
    shared = _constant(operation, "scale" if scales else "lut")
    blocks, extra = _shape_and_bytes(shared)
    if scales:
        stored, group = kind.dtype.lower(), columns // blocks[1]
        granularity = "row" if group == columns else "block"
    else:
        stored, group, granularity = "palette", rows // blocks[0], "palette"
    size = kind.nbytes + extra
    return StoredWeight(name, kind.shape, stored, kind.bits, granularity, group, size)


def _constant(operation: Operation, name: str) -> Any:
    argument = operation.arguments[name]
    return argument.value if isinstance(argument, Constant) else None


def _shape_and_bytes(value: Any) -> tuple[tuple[int, ...], int]:
    """Small arrays are in the program itself."""
    if isinstance(value, StoredArray):
        return value.kind.shape, value.kind.nbytes
    array = np.asarray(value)
    return array.shape, array.nbytes
