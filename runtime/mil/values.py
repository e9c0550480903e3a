"""Types and constant values of a program."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onekv.errors import BundleError
from onekv.runtime.mil.tools import proto

DYNAMIC = -1
"""A dimension that the file leaves open."""

_BITS = {"UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "INT4": 4, "UINT6": 6, "BOOL": 8}
_NUMPY = {
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class TensorType:
    """`dtype` by the name in the file (FLOAT16, INT4, STRING, ...); no shape for a scalar."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements; 0 or less when a dimension is dynamic."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of one element as it is stored."""
        if self.dtype in _BITS:
            return _BITS[self.dtype]
        return np.dtype(_NUMPY[self.dtype]).itemsize * 8

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor, rounded up."""
        return (self.count * self.bits + 7) // 8

    @property
    def static(self) -> bool:
        """Whether every dimension is known."""
        return DYNAMIC not in self.shape


def tensor_type(value_type: Any) -> TensorType:
    """The type of a value in a program.

    Raises:
        BundleError: not a tensor.
    """
    kind = value_type.WhichOneof("type")
    if kind != "tensorType":
        raise BundleError(f"the program has a value of type {kind}, which no export of ours has")
    tensor = value_type.tensorType
    shape = tuple(
        int(d.constant.size) if d.WhichOneof("dimension") == "constant" else DYNAMIC
        for d in tensor.dimensions
    )
    return TensorType(proto().MIL_pb2.DataType.Name(tensor.dataType), shape)


def immediate_value(tensor: Any, kind: TensorType) -> Any:
    """A constant that is stored in the program itself: a numpy array, a scalar or a string."""
    values = getattr(tensor, tensor.WhichOneof("value")).values
    if kind.dtype == "STRING":
        return str(values[0])
    array: NDArray[Any]
    if isinstance(values, bytes):
        array = np.frombuffer(values, _NUMPY[kind.dtype])
    else:
        array = np.asarray(values, _NUMPY[kind.dtype])
    if array.size != max(kind.count, 0):
        raise BundleError(f"a constant has {array.size} elements where its type has {kind.count}")
    return array.reshape(kind.shape)
