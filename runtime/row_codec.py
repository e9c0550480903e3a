"""How rows become records and back: the definition that every kernel's storage is tested against.

A float format is its torch type. Quantisation is symmetric, rounds to nearest with ties to even,
and computes in float32. Layouts are those of `onekv_format` in kernel/attend.h.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onekv.runtime.rows import INT4_GROUP, RowFormat, record_layout


def as_stored(rows: Tensor, cache: Tensor) -> Tensor:
    """rows [..., D] in the form in which `cache` [B, Hkv, L, last_dim] stores them.

    A cache of bytes holds records, in two halves along D when its last extent says so.
    """
    if cache.dtype != torch.uint8:
        return rows.to(cache.dtype)
    form, parts = record_layout(cache.shape[-1], rows.shape[-1])
    return torch.cat([encode(part, form) for part in rows.chunk(parts, dim=-1)], dim=-1)


def as_rows(stored: Tensor, head_dim: int, work: torch.dtype) -> Tensor:
    """What a cache stores [..., last_dim], as rows [..., D] of type `work`."""
    if stored.dtype != torch.uint8:
        return stored.to(work)
    form, parts = record_layout(stored.shape[-1], head_dim)
    halves = [decode(part, form) for part in stored.chunk(parts, dim=-1)]
    return torch.cat(halves, dim=-1).to(work)


def encode(rows: Tensor, form: RowFormat) -> Tensor:
    """rows [..., D] to records [..., last_dim] in the cache's type."""
    if form is RowFormat.INT8:
        return _encode_int8(rows.float())
    if form is RowFormat.INT4:
        return _encode_int4(rows.float())
    return rows.to(getattr(torch, form.torch_dtype))


def decode(records: Tensor, form: RowFormat) -> Tensor:
    """records [..., last_dim] to rows [..., D], float32."""
    if form is RowFormat.INT8:
        return _decode_int8(records)
    if form is RowFormat.INT4:
        return _decode_int4(records)
    return records.float()


def _encode_int8(rows: Tensor) -> Tensor:
    scale = rows.abs().amax(-1, keepdim=True) / 127
    levels = _levels(rows, scale, 127).to(torch.int8)
    return torch.cat((levels.view(torch.uint8), scale.view(torch.uint8)), dim=-1)


def _decode_int8(records: Tensor) -> Tensor:
    levels = records[..., :-4].view(torch.int8)
    return levels * _bytes_as(records[..., -4:], torch.float32)


def _encode_int4(rows: Tensor) -> Tensor:
    dim = rows.shape[-1]
    groups = F.pad(rows, (0, -dim % INT4_GROUP)).unflatten(-1, (-1, INT4_GROUP))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).half()
    levels = _levels(groups, scale.float(), 7).flatten(-2)[..., :dim].to(torch.uint8) + 8
    low, high = levels.chunk(2, dim=-1)
    return torch.cat((low | high << 4, scale.squeeze(-1).view(torch.uint8)), dim=-1)


def _decode_int4(records: Tensor) -> Tensor:
    dim = _int4_dim(records.shape[-1])
    packed, scales = records[..., : dim // 2], records[..., dim // 2 :]
    levels = torch.cat((packed & 15, packed >> 4), dim=-1).float() - 8
    scale = _bytes_as(scales, torch.float16).float()
    return levels * scale.repeat_interleave(INT4_GROUP, dim=-1)[..., :dim]


def _int4_dim(record_bytes: int) -> int:
    return next(
        d for d in range(8, 8 * record_bytes, 8) if RowFormat.INT4.row_bytes(d) == record_bytes
    )


def _levels(rows: Tensor, scale: Tensor, limit: int) -> Tensor:
    levels = torch.where(scale > 0, rows / scale, 0.0).round()
    return levels.clamp(-limit, limit)


def _bytes_as(records: Tensor, dtype: torch.dtype) -> Tensor:
    return records.contiguous().view(dtype)
