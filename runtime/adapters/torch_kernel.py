"""`onekv::attend` in eager PyTorch by onekv's kernel, for those who ask for it.

The definition (reference.py) stays the default: it is what every kernel is checked against, and it
takes any rotary table, where the kernel needs one that turns by fixed angles.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
from collections.abc import Iterator

import torch
from torch import Tensor

from onekv.runtime import kernel_library as kernel
from onekv.runtime import native, reference
from onekv.runtime.rows import RowFormat, record_layout

_FLOATS = {
    torch.float32: RowFormat.FP32,
    torch.float16: RowFormat.FP16,
    torch.bfloat16: RowFormat.BF16,
}
_active = contextvars.ContextVar("onekv_kernel_attention", default=False)


@contextlib.contextmanager
def kernel_attention() -> Iterator[None]:
    """Within the block, both operators run in the kernel, where it is installed.

    Calls that it refuses run as they are defined. Rotary tables must be those of one RoPE, from
    position 0 (`rotary_tables`).
    """
    token = _active.set(native.find_library(native.KERNEL) is not None)
    try:
        yield
    finally:
        _active.reset(token)


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
    """As `reference.attend`; by the kernel where it is asked for and takes the call."""
    if _active.get() and _takes(q, (c,), (cache,)):
        reference.check_tables(cos, sin, int(pos) + q.shape[1], q.shape[3])
        tables = [None if t is None else t.float().contiguous() for t in (cos, sin, key_gain)]
        fields = _fields(q, c, cache, pos, scale, window) | _table_fields(*tables)
        out = _call(q, fields)
        if out is not None:
            return out
    return reference.attend(q, c, cache, pos, cos, sin, key_gain, scale, window)


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
    """As `reference.attend_kv`; by the kernel where it is asked for and takes the call."""
    if _active.get() and _takes(q, (k, v), (keys, values)):
        fields = _fields(q, k, keys, pos, scale, window)
        fields |= {"new_values": c_tensor(v), "values": c_rows(values, q.shape[3])}
        out = _call(q, fields)
        if out is not None:
            return out
    return reference.attend_kv(q, k, v, keys, values, pos, scale, window)


def c_tensor(t: Tensor) -> kernel.CTensor:
    """Activations [B, S, heads, D] for the C interface."""
    return kernel.CTensor(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2))


def c_rows(cache: Tensor, head_dim: int) -> kernel.CRows:
    """A cache [B, Hkv, L, row] for the C interface; rows of bytes may be two records."""
    _, parts = _layout(cache, head_dim)
    batch, head, row = (stride * cache.element_size() for stride in cache.stride()[:3])
    second = cache.data_ptr() + cache.shape[3] // 2 if parts == 2 else None
    return kernel.CRows((ctypes.c_void_p * 2)(cache.data_ptr(), second), batch, head, row)


def _layout(cache: Tensor, head_dim: int) -> tuple[RowFormat, int]:
    if cache.dtype == torch.uint8:
        return record_layout(cache.shape[3], head_dim)
    return _FLOATS[cache.dtype], 1


def _takes(q: Tensor, new: tuple[Tensor, ...], caches: tuple[Tensor, ...]) -> bool:
    """Whether the kernel can be given these tensors: it sees pointers and strides alone.

    Raises:
        ValueError: the shapes contradict each other.
    """
    for rows, cache in zip(new, caches):
        reference.check_shapes(q, rows, cache)
    return (
        all(t.device.type == "cpu" and t.stride(3) == 1 for t in (q, *new, *caches))
        and q.dtype in _FLOATS
        and all(rows.dtype == q.dtype for rows in new)
        and all(cache.dtype in (*_FLOATS, torch.uint8) for cache in caches)
        and len({(cache.shape, cache.dtype, cache.stride()) for cache in caches}) == 1
    )


def _fields(
    q: Tensor, new: Tensor, cache: Tensor, pos: Tensor, scale: float, window: int
) -> dict[str, object]:
    batch, tokens, heads, dim = q.shape
    return {
        "batch": batch,
        "new_tokens": tokens,
        "heads": heads,
        "kv_heads": cache.shape[1],
        "head_dim": dim,
        "length": cache.shape[2],
        "position": int(pos),
        "window": window,
        "scale": scale,
        "activations": _FLOATS[q.dtype].code,
        "q": c_tensor(q),
        "new_rows": c_tensor(new),
        "format": _layout(cache, dim)[0].code,
        "rows": c_rows(cache, dim),
        "threads": torch.get_num_threads(),
    }


def _table_fields(cos: Tensor | None, sin: Tensor | None, gain: Tensor | None) -> dict[str, object]:
    fields: dict[str, object] = {}
    if cos is not None and sin is not None:
        fields |= {"cos": cos.data_ptr(), "sin": sin.data_ptr()}
        fields |= {"table_length": cos.shape[0], "table_stride": cos.shape[1]}
    if gain is not None:
        fields["key_gain"] = gain.data_ptr()
    return fields


def _call(q: Tensor, fields: dict[str, object]) -> Tensor | None:
    """The output; None when the kernel refused the call, which wrote nothing."""
    out = torch.empty(q.shape, dtype=q.dtype)
    try:
        kernel.attend(kernel.CAttendArgs(**fields, out=c_tensor(out)))
    except kernel.KernelError:
        return None
    return out
