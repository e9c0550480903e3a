"""Shapes, slices, gathers and concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onekv.errors import OnekvError
from onekv.runtime.mil.operators.registry import Array, integers, operator


@operator
def reshape(x: Array, shape: Any) -> Array:
    wanted = integers(shape)
    if 0 in wanted:
        raise OnekvError("the evaluator has no reshape that copies a size")
    return x.reshape(wanted)


@operator
def transpose(x: Array, perm: Any) -> Array:
    return x.transpose(integers(perm))


@operator
def expand_dims(x: Array, axes: Any) -> Array:
    return np.expand_dims(x, integers(axes))


@operator
def squeeze(x: Array, axes: Any = None) -> Array:
    return np.squeeze(x, None if axes is None else integers(axes))


@operator
def concat(values: Sequence[Array], axis: Any, interleave: Any = False) -> Array:
    if interleave:
        raise OnekvError("the evaluator has no interleaved concat, which onekv never exports")
    return np.concatenate([np.atleast_1d(value) for value in values], int(axis))


@operator
def stack(values: Sequence[Array], axis: Any) -> Array:
    return np.stack(list(values), int(axis))


@operator
def split(
    x: Array, axis: Any, num_splits: Any = None, split_sizes: Any = None
) -> tuple[Array, ...]:
    if split_sizes is None:
        return tuple(np.split(x, int(num_splits), int(axis)))
    return tuple(np.split(x, np.cumsum(integers(split_sizes))[:-1], int(axis)))


@operator
def tile(x: Array, reps: Any) -> Array:
    return np.tile(x, integers(reps))


@operator
def shape_(x: Array) -> Array:
    return np.asarray(x.shape, np.int32)


@operator
def range_1d(start: Any, end: Any, step: Any) -> Array:
    return np.arange(start, end, step, dtype=np.asarray(start).dtype)


@operator
def gather(
    x: Array,
    indices: Array,
    axis: Any = 0,
    batch_dims: Any = 0,
    validate_indices: Any = False,
) -> Array:
    if int(batch_dims):
        raise OnekvError("the evaluator has no gather over batches, which onekv never exports")
    length = x.shape[int(axis)]
    if np.any((indices < -length) | (indices >= length)):
        raise OnekvError(f"an index of a gather is outside the {length} entries of its table")
    return np.take(x, indices, int(axis))


@operator
def slice_by_index(
    x: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    view: Array = x[slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)]
    return view


@operator
def slice_update(
    x: Array,
    update: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
    in_place: bool = False,
) -> Array:
    """`in_place` is the evaluator's: x is not used again."""
    out = x if in_place else x.copy()
    place = slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if out[place].shape != update.shape:
        raise OnekvError(f"an update of {update.shape} does not fit into a slice of {x.shape}")
    out[place] = update
    return out


def slices(
    shape: tuple[int, ...],
    begin: Any,
    end: Any,
    stride: Any,
    begin_mask: Any,
    end_mask: Any,
    squeeze_mask: Any,
) -> tuple[slice | int, ...]:
    """The index of a slice operator: masks open an end, or keep one element without its axis."""
    rank = len(shape)
    starts, stops = integers(begin), integers(end)
    strides = (1,) * rank if stride is None else integers(stride)
    open_starts, open_stops, single = (
        (False,) * rank if mask is None else tuple(bool(m) for m in np.atleast_1d(mask))
        for mask in (begin_mask, end_mask, squeeze_mask)
    )
    index: list[slice | int] = []
    for axis in range(rank):
        if single[axis]:
            index.append(starts[axis])
            continue
        start = None if open_starts[axis] else starts[axis]
        stop = None if open_stops[axis] else stops[axis]
        index.append(slice(start, stop, strides[axis]))
    return tuple(index)
