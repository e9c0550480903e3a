"""Scaled dot-product attention as one operator (iOS 18)."""

from __future__ import annotations

import numpy as np

from onekv.runtime.mil.operators.norms import softmax
from onekv.runtime.mil.operators.registry import Array, operator


@operator
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    scores = np.matmul(query * np.float32(query.shape[-1] ** -0.5), key.swapaxes(-1, -2))
    if attn_mask is not None:
        if attn_mask.dtype == np.bool_:
            attn_mask = np.where(attn_mask, np.float32(0), np.float32(-np.inf))
        scores = scores + attn_mask
    out: Array = np.matmul(softmax(scores), value)
    return out
