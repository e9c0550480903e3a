"""Calls of our kernel over one tensor, or over two with keys that are already rotated."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from onekv.bench.kernel.contest import Shape, Step
from onekv.runtime import kernel_library as kernel
from onekv.runtime.row_codec import encode
from onekv.runtime.rows import RowFormat


def own_steps(
    shape: Shape, form: RowFormat, rope: bool = False, two_tensors: bool = False
) -> list[Step]:
    """Calls of our kernel, one for each of enough caches."""
    row_bytes = shape.kv_heads * form.row_bytes(shape.head_dim) * (1 + two_tensors)
    copies = shape.copies(row_bytes * shape.length)
    return [_own_step(shape, form, rope, two_tensors) for _ in range(copies)]


def _own_step(shape: Shape, form: RowFormat, rope: bool, two_tensors: bool) -> Step:
    q = torch.randn(1, shape.new_tokens, shape.heads, shape.head_dim)
    new = torch.randn(1, shape.new_tokens, shape.kv_heads, shape.head_dim)
    out = torch.empty_like(q)
    caches = [_cache(shape, form) for _ in range(1 + two_tensors)]
    cos, sin = _tables(shape)
    fields: dict[str, object] = {
        "batch": 1,
        "new_tokens": shape.new_tokens,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "length": shape.length,
        "position": shape.context,
        "scale": shape.head_dim**-0.5,
        "q": _tensor(q),
        "new_rows": _tensor(new),
        "out": _tensor(out),
        "format": form.code,
        "rows": _rows(caches[0]),
        "threads": shape.threads,
    }
    if rope:
        fields |= {"cos": cos.data_ptr(), "sin": sin.data_ptr()}
        fields |= {"table_length": shape.length, "table_stride": shape.head_dim // 2}
    if two_tensors:
        fields |= {"values": _rows(caches[1]), "new_values": _tensor(new)}
    args, library = kernel.CAttendArgs(**fields), kernel.load()
    held = (q, new, out, caches, cos, sin)

    def step() -> object:
        kernel.attend(args, library)
        return held  # what the arguments point to must live as long as the step

    return step


def _tables(shape: Shape) -> tuple[Tensor, Tensor]:
    half = shape.head_dim // 2
    angles = torch.outer(torch.arange(shape.length).double(), 5e5 ** -(torch.arange(half) / half))
    return angles.cos().float(), angles.sin().float()


def _cache(shape: Shape, form: RowFormat) -> Tensor:
    some = torch.randn(1, shape.kv_heads, min(shape.length, 1024), shape.head_dim)
    records = encode(some, form)
    repeats = -(-shape.length // records.shape[2])
    return records.repeat(1, 1, repeats, 1)[:, :, : shape.length].contiguous()


def _tensor(t: Tensor) -> kernel.CTensor:
    return kernel.CTensor(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2))


def _rows(t: Tensor) -> kernel.CRows:
    batch, head, row = (stride * t.element_size() for stride in t.stride()[:3])
    return kernel.CRows((ctypes.c_void_p * 2)(t.data_ptr(), None), batch, head, row)
