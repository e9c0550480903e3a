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
    values: Array = data.astype(np.float32)
    blocks = values.reshape(_split(data.shape, scale.shape))
    if offset is not None:
        blocks -= _one_per_block(offset.astype(np.float32))
    blocks *= _one_per_block(scale)
    return values


@operator
def constexpr_lut_to_dense(indices: Array, lut: Array, vector_axis: Any = None) -> Array:
    """lut [blocks of each axis..., entries, 1]; each block of indices reads its own table."""
    if lut.shape[-1] != 1:
        raise OnekvError("the evaluator has no palettes of vectors, which onekv never exports")
    blocks = lut.shape[:-2]
    split = _split(indices.shape, blocks)
    dense = np.empty(indices.shape, np.float32)
    parts, numbers = dense.reshape(split), indices.reshape(split)
    for block in np.ndindex(blocks):
        place = tuple(part for number in block for part in (number, slice(None)))
        parts[place] = lut[(*block, slice(None), 0)].take(numbers[place])
    return dense


def _split(shape: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Every axis as two: the block, and the place in it."""
    return tuple(part for size, count in zip(shape, blocks) for part in (count, size // count))


def _one_per_block(values: Array) -> Array:
    return values.reshape(tuple(part for count in values.shape for part in (count, 1)))
