"""Arithmetic, comparison, logic, activation and cast."""

from __future__ import annotations

from typing import Any

import numpy as np

from onekv.runtime.mil.operators.registry import OPERATORS, Array, operator

_TYPES = {
    "fp16": np.float32,
    "fp32": np.float32,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "bool": np.bool_,
}

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "floor_div": np.floor_divide,
    "mod": np.mod,
}
_UNARY = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "logical_not": np.logical_not,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "tanh": np.tanh,
    "identity": lambda x: x,
}


def _binary(function: Any) -> Any:
    return lambda x, y: function(x, y)


def _unary(function: Any) -> Any:
    return lambda x: function(x)


OPERATORS.update({name: _binary(function) for name, function in _BINARY.items()})
OPERATORS.update({name: _unary(function) for name, function in _UNARY.items()})


@operator
def real_div(x: Array, y: Array) -> Array:
    quotient: Array = np.true_divide(x, y)
    return quotient.astype(np.result_type(x, y))


@operator
def pow_(x: Array, y: Array) -> Array:
    if np.ndim(y) == 0 and y == 2:
        return x * x
    power: Array = np.power(x, y)
    return power


@operator
def rsqrt(x: Array, epsilon: Any = 0) -> Array:
    root: Array = 1 / np.sqrt(x + np.float32(epsilon))
    return root


@operator
def inverse(x: Array, epsilon: Any = 0) -> Array:
    result: Array = 1 / (x + np.float32(epsilon))
    return result


@operator
def cast(x: Array, dtype: str) -> Array:
    return np.asarray(x).astype(_TYPES[dtype])


@operator
def select(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


@operator
def sigmoid(x: Array) -> Array:
    # exp of a negative number only, so that nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


@operator
def silu(x: Array) -> Array:
    product: Array = x * sigmoid(x)
    return product


@operator
def relu(x: Array) -> Array:
    result: Array = np.maximum(x, 0)
    return result


@operator
def gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode == "EXACT":
        result: Array = 0.5 * x * (1 + _erf(x / np.float32(2**0.5)))
    elif mode == "TANH_APPROXIMATION":
        inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
        result = 0.5 * x * (1 + np.tanh(inner))
    else:
        result = x * sigmoid(np.float32(1.702) * x)
    return result.astype(np.float32)


@operator
def erf(x: Array) -> Array:
    return _erf(x)


def _erf(x: Array) -> Array:
    """numpy has no error function; torch, which onekv needs anyway, has a vectorised one."""
    import torch

    return torch.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy()
