"""Reductions, softmax and layer normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from onekv.runtime.mil.operators.registry import OPERATORS, Array, integers, operator

_REDUCTIONS = {
    "reduce_mean": np.mean,
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
}


def _reduction(function: Any) -> Any:
    def reduce(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
        axis = None if axes is None else integers(axes)
        return np.asarray(function(x, axis=axis, keepdims=bool(keep_dims)), x.dtype)

    return reduce


OPERATORS.update({name: _reduction(function) for name, function in _REDUCTIONS.items()})


@operator
def softmax(x: Array, axis: Any = -1) -> Array:
    exponentials = np.exp(x - x.max(axis=int(axis), keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=int(axis), keepdims=True)
    return result


@operator
def layer_norm(
    x: Array,
    axes: Any = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Any = 1e-5,
) -> Array:
    axis = tuple(range(x.ndim)) if axes is None else integers(axes)
    centred = x - x.mean(axis=axis, keepdims=True)
    variance = np.square(centred).mean(axis=axis, keepdims=True)
    result: Array = centred / np.sqrt(variance + np.float32(epsilon))
    shape = [x.shape[i] if i in {a % x.ndim for a in axis} else 1 for i in range(x.ndim)]
    if gamma is not None:
        result = result * gamma.reshape(shape)
    if beta is not None:
        result = result + beta.reshape(shape)
    return result
