"""Matrix products and convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from onekv.errors import OnekvError
from onekv.runtime.mil.operators.registry import Array, integers, operator


@operator
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    out = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[0])


@operator
def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    left = x.swapaxes(-1, -2) if transpose_x else x
    right = y.swapaxes(-1, -2) if transpose_y else y
    product: Array = np.matmul(left, right)
    return product


@operator
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Any = (1, 1),
    pad_type: str = "valid",
    pad: Any = (0, 0, 0, 0),
    dilations: Any = (1, 1),
    groups: Any = 1,
) -> Array:
    """x [1, C, H, W] with a kernel of 1x1, which is a product over channels."""
    size = weight.shape[2:]
    if max(size) > 1 or int(groups) != 1 or max(integers(strides)) > 1 or max(integers(pad)) > 0:
        raise OnekvError(
            f"the evaluator has no convolution of size {size}, {int(groups)} groups, "
            f"strides {integers(strides)} and padding {integers(pad)}",
            "It knows 1x1 convolutions, which are all that onekv exports.",
        )
    batch, channels, *space = x.shape
    out = weight.reshape(weight.shape[0], channels) @ x.reshape(batch, channels, -1)
    if bias is not None:
        out += bias[:, None]
    return out.reshape(batch, -1, *space)
