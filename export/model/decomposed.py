"""Attention in plain operators over all rows of a cache, for runtimes without one of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_attention(
    q: Tensor, keys: Tensor, values: Tensor, hide: Callable[[Tensor], Tensor], scale: float
) -> Tensor:
    """q [1, S, Hq, D] over keys and values [Hkv, T, D]; gives [1, S, Hq, D].

    `hide` is given the scores [Hkv, Hq/Hkv, S, T] and makes those of hidden rows so low that
    their weights vanish. The queries of a group stand one below another, so that no row is
    repeated.
    """
    new, heads, dim = q.shape[1:]
    kv_heads, length = keys.shape[:2]
    group = heads // kv_heads
    # Sizes that are all named, and copies, keep a symbolic S free of conditions when it is traced.
    grouped = q.squeeze(0).permute(1, 0, 2).contiguous().view(kv_heads, group * new, dim)
    scores = torch.bmm(grouped * scale, keys.transpose(1, 2))
    weights = hide(scores.view(kv_heads, group, new, length)).softmax(-1)
    out = torch.bmm(weights.view(kv_heads, group * new, length), values)
    return out.view(heads, new, dim).permute(1, 0, 2).contiguous().unsqueeze(0)
