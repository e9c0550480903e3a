"""Compressed weights: constant expressions that are unpacked when a package is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from onekv.errors import OnekvError
from onekv.runtime.mil.operators.registry import Array, operator


@operator
def constexpr_blockwise_shift_scale(
    data: Array, scale: Array, offset: Array | None = None
) -> Array:
    """scale * (data - offset), each scale for a block of equal size along every axis."""
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _spread(offset.astype(np.float32), data.shape)
    return values * _spread(scale, data.shape)


@operator
def constexpr_lut_to_dense(indices: Array, lut: Array, vector_axis: Any = None) -> Array:
    """lut [blocks of each axis..., entries, 1]; each block of indices reads its own table."""
    if lut.shape[-1] != 1:
        raise OnekvError("the evaluator has no palettes of vectors, which onekv never exports")
    blocks = lut.shape[:-2]
    tables = lut.reshape(-1, lut.shape[-2])
    number = _spread(np.arange(len(tables)).reshape(blocks), indices.shape)
    dense: Array = tables[number, indices.astype(np.intp)]
    return dense


def _spread(blocks: Array, shape: tuple[int, ...]) -> Array:
    """Repeat one value per block until it has the full shape."""
    for axis, size in enumerate(shape):
        if blocks.shape[axis] not in (1, size):
            blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return np.broadcast_to(blocks, shape)
