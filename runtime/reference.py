"""The definition of `onekv::attend` and its two-tensor baseline, in plain PyTorch.

Every kernel, graph body and evaluator is tested against these functions. They
compute in float32, or in float64 when the queries are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onekv.runtime.row_codec import as_rows, as_stored
from onekv.runtime.rows import record_layout


class CacheOverflowError(ValueError):
    """The new rows do not fit into the cache, which is left as it was."""


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding with half-split pairing: dimension i turns with i + D/2.

    x [..., S, D]; cos, sin broadcastable to [..., S, D/2]. A zero angle leaves its pair as it
    is, which is how a partial rotation is written.
    """
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def attend(
    q: Tensor,
    c: Tensor,
    cache: Tensor,
    pos: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    key_gain: Tensor | None = None,
    scale: float = 1.0,
    window: int = 0,
) -> Tensor:
    """Append rows to a one-tensor cache and attend over it, each row as key and as value.

    Row t is key `rope(key_gain * row, t)` and value `row`. The query at position p sees
    the rows t with t <= p and, if `window` > 0, t > p - window.

    Args:
        q: [B, S, Hq, D] queries, already rotated when the model has RoPE.
        c: [B, S, Hkv, D] new shared rows, not rotated.
        cache: [B, Hkv, L, D], written in place at positions pos .. pos+S-1. Position t
            lies in row t; with a window, in row t mod L (a ring). A cache of bytes
            [B, Hkv, L, row_bytes] holds quantised rows (rows.py, row_codec.py).
        pos: int64 [1], the tokens already in the cache.
        cos, sin: [T, D/2] by position, T >= pos+S; None when the model has no RoPE.
        key_gain: [D], applied to a row before rotation when it serves as key.
        scale: factor on the scores.
        window: how many positions a query sees, itself included; 0 for all.

    Returns:
        [B, S, Hq, D] in q's type, contiguous.

    Raises:
        CacheOverflowError: pos+S exceeds L (with a window: a row still in view would be
            overwritten). The cache is left as it was.
        ValueError: the shapes contradict each other. The cache is left as it was.
    """
    check_shapes(q, c, cache)
    start = _check_fits(q.shape[1], cache.shape[2], pos, window)
    check_tables(cos, sin, start + q.shape[1], q.shape[3])
    slots, positions = _append(cache, c, start, window)
    work = _work_type(q)
    rows = as_rows(cache[:, :, slots], q.shape[3], work)
    keys = rows if key_gain is None else rows * key_gain.to(work)
    if cos is not None and sin is not None:
        keys = rotate(keys, cos[positions].to(work), sin[positions].to(work))
    return _softmax_sum(q, keys, rows, positions, start, scale, window)


def attend_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    scale: float = 1.0,
    window: int = 0,
) -> Tensor:
    """The ordinary two-tensor attention: the baseline of every comparison.

    Shapes, positions, window and errors as in `attend`; q [B, S, Hq, D] and k [B, S, Hkv, D]
    are already rotated, and `keys` and `values` [B, Hkv, L, D] are written in place.
    """
    check_shapes(q, k, keys)
    check_shapes(q, v, values)
    start = _check_fits(q.shape[1], keys.shape[2], pos, window)
    slots, positions = _append(keys, k, start, window)
    _append(values, v, start, window)
    work, dim = _work_type(q), q.shape[3]
    seen_keys = as_rows(keys[:, :, slots], dim, work)
    seen_values = as_rows(values[:, :, slots], dim, work)
    return _softmax_sum(q, seen_keys, seen_values, positions, start, scale, window)


def check_shapes(q: Tensor, rows: Tensor, cache: Tensor) -> None:
    """Refuse what broadcasting would accept and turn into nonsense."""
    batch, new, heads, dim = q.shape
    kv_heads = cache.shape[1]
    same_rows = rows.shape == (batch, new, kv_heads, dim)
    if cache.dtype == torch.uint8:
        record_layout(cache.shape[3], dim)
    same_cache = cache.shape[0] == batch and (cache.dtype == torch.uint8 or cache.shape[3] == dim)
    if not (same_rows and same_cache) or heads % kv_heads:
        raise ValueError(
            f"queries {list(q.shape)}, rows {list(rows.shape)} and cache {list(cache.shape)} "
            "do not belong together"
        )


def check_tables(cos: Tensor | None, sin: Tensor | None, end: int, dim: int) -> None:
    """Refuse rotary tables that do not cover `end` positions of dim/2 angles."""
    if cos is None and sin is None:
        return
    if cos is None or sin is None:
        raise ValueError("cos and sin are given together or not at all")
    if cos.shape != sin.shape or cos.shape[0] < end or cos.shape[1] != dim // 2:
        raise ValueError(
            f"rotary tables {list(cos.shape)} and {list(sin.shape)} do not cover "
            f"{end} positions of {dim // 2} angles"
        )


def _check_fits(new_rows: int, length: int, pos: Tensor, window: int) -> int:
    start = int(pos)
    if window < 0:
        raise ValueError(f"window {window} is negative")
    if start < 0:
        raise CacheOverflowError(f"position {start} is negative")
    wraps = start + new_rows > length
    if wraps and (window == 0 or window + new_rows - 1 > length):
        need = start + new_rows if window == 0 else window + new_rows - 1
        raise CacheOverflowError(f"{need} rows do not fit into a cache of {length}")
    return start


def _append(cache: Tensor, rows: Tensor, start: int, window: int) -> tuple[Tensor, Tensor]:
    """Write rows [B, S, H, D]; return the filled slots and the positions they hold."""
    length = cache.shape[2]
    end = start + rows.shape[1]
    cache[:, :, torch.arange(start, end) % length] = as_stored(rows.transpose(1, 2), cache)
    positions = torch.arange(max(0, end - length), end)
    return positions % length, positions


def _softmax_sum(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    start: int,
    scale: float,
    window: int,
) -> Tensor:
    """q [B, S, Hq, D] over keys and values [B, Hkv, P, D] held at `positions` [P]."""
    batch, new, heads, dim = q.shape
    kv_heads = keys.shape[1]
    grouped = q.to(keys.dtype).reshape(batch, new, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("bshgd,bhpd->bhgsp", grouped, keys) * scale
    query_positions = torch.arange(start, start + new).unsqueeze(1)
    visible = positions <= query_positions
    if window:
        visible &= positions > query_positions - window
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    out = torch.einsum("bhgsp,bhpd->bshgd", weights, values)
    return out.reshape(q.shape).to(q.dtype).contiguous()


def _work_type(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32
