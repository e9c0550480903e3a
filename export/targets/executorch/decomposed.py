"""The cache in aten operators alone, for delegates that take the whole model: GPUs and Core ML.

Attention goes over all L rows of the cache with a mask, at static shapes, batch 1: the rows past
the position are hidden, and what they hold must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onekv.export.model.cache import LayerCache, Step
from onekv.export.model.decomposed import masked_attention
from onekv.export.model.spec import ModelSpec
from onekv.runtime.reference import rotate

_HIDDEN = -1e4
"""Added to hidden scores: finite in fp16, in which delegates may compute."""


@dataclass(frozen=True)
class DecomposedCaches:
    """Caches [*leading, L, Hkv, D] in `dtype`; `append` writes new rows [1, S, Hkv, D]."""

    spec: ModelSpec
    context: int
    dtype: torch.dtype
    append: Callable[[Tensor, Tensor, Tensor], None]
    leading: tuple[int, ...] = ()

    def tensors(self) -> tuple[Tensor, ...]:
        """One layer's tensors."""
        shape = (*self.leading, self.context, self.spec.kv_heads, self.spec.head_dim)
        cached = self.spec.sharing.cached_tensors
        return tuple(torch.zeros(shape, dtype=self.dtype) for _ in range(cached))

    def binder(self, pos: Tensor) -> Callable[..., LayerCache]:
        """What makes a layer's cache of its tensors, at one position."""
        return lambda *tensors: DecomposedCache(tensors, self.append)


@dataclass(frozen=True)
class DecomposedCache:
    """One layer's rows: (c,) or (keys, values), each [..., L, Hkv, D]."""

    tensors: tuple[Tensor, ...]
    append: Callable[[Tensor, Tensor, Tensor], None]

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """See `LayerCache`."""
        for row, cache in zip(rows, self.tensors):
            self.append(cache, row.to(cache.dtype), step.pos)
        shape = self.tensors[0].shape[-3:]
        keys, values = (self.tensors[i].view(shape).to(q.dtype) for i in (0, -1))
        length, new = shape[0], q.shape[1]
        if len(rows) == 1 and step.cos is not None and step.sin is not None:
            keys = rotate(keys, step.cos[:length].unsqueeze(1), step.sin[:length].unsqueeze(1))
        mask = _mask(step.pos, new, length, step.window)
        group = q.shape[2] // shape[1]
        keys, values = _repeated(keys, group), _repeated(values, group)
        return masked_attention(q, keys, values, lambda scores: scores + mask, step.scale)


def _repeated(rows: Tensor, group: int) -> Tensor:
    """Rows [L, Hkv, D] for every query head: [Hq, L, D].

    The queries of a group, stacked instead, make the sizes of a traced product depend on S.
    """
    length, heads, dim = rows.shape
    wide = rows.permute(1, 0, 2).unsqueeze(1)
    return torch.cat([wide] * group, 1).reshape(heads * group, length, dim)


def _mask(pos: Tensor, new: int, length: int, window: int) -> Tensor:
    """[S, L] in float32: 0 where a query sees a row."""
    queries = (pos + torch.arange(new)).unsqueeze(1)
    behind = (queries - torch.arange(length)).float()
    hidden = behind < 0
    if window:
        hidden = hidden | (behind >= window)
    return hidden.float() * _HIDDEN


def append_by_update(cache: Tensor, rows: Tensor, pos: Tensor) -> None:
    """With ExecuTorch's own operator, which the Vulkan delegate knows."""
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    start = pos[0].item()
    torch._check(start >= 0)
    torch._check(start + rows.shape[1] <= cache.shape[1])
    torch.ops.llama.update_cache(rows, cache, start)


def append_by_index(cache: Tensor, rows: Tensor, pos: Tensor) -> None:
    """With a scatter, which Core ML performs on its state."""
    positions = pos + torch.arange(rows.shape[1])
    cache.index_put_((positions,), rows[0])
