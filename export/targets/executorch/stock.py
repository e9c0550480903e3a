"""The same caches through operators that every ExecuTorch runtime has: `--ops stock`.

The rows of a cache lie token-major [1, L, Hkv, D], as `llama::update_cache` appends them and
`llama::custom_sdpa` reads them: one tensor in both roles. With RoPE the keys of all L rows are
turned in every step, into memory of their own: that is the price of having no kernel of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

# Declares torch.ops.llama.
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
from torch import Tensor

from onekv.export.model.cache import LayerCache, Step
from onekv.export.model.spec import ModelSpec
from onekv.quantize.numbers import Number
from onekv.runtime.reference import rotate

_LEVELS = 127


@dataclass(frozen=True)
class StockCaches:
    """Caches in fp32, or in int8 with an fp32 scale for each row and head: as many bytes as the
    records of our operator.
    """

    spec: ModelSpec
    context: int
    number: Number

    def tensors(self) -> tuple[Tensor, ...]:
        """One layer's tensors: per cached tensor the rows and, in int8, their scales."""
        rows = (1, self.context, self.spec.kv_heads)
        if self.number is Number.FP32:
            kinds = [torch.zeros(*rows, self.spec.head_dim)]
        else:
            kinds = [
                torch.zeros(*rows, self.spec.head_dim, dtype=torch.int8),
                torch.zeros(*rows, 1),
            ]
        return tuple(
            kind.clone() for _ in range(self.spec.sharing.cached_tensors) for kind in kinds
        )

    def binder(self, pos: Tensor) -> Callable[..., LayerCache]:
        """What makes a layer's cache of its tensors, at one position."""
        start = pos[0].item()
        torch._check(start >= 0)
        torch._check(start < self.context)

        def bind(*tensors: Tensor) -> LayerCache:
            if self.number is Number.FP32:
                return StockCache(tensors, start)
            return StockInt8Cache(tensors, start)

        return bind


@dataclass(frozen=True)
class StockCache:
    """One layer's rows in fp32: (c,) or (keys, values), each [1, L, Hkv, D]."""

    tensors: tuple[Tensor, ...]
    start: Any

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """See `LayerCache`."""
        for new, cache in zip(rows, self.tensors):
            torch.ops.llama.update_cache(new, cache, self.start)
        return _attend(q, self.tensors, self.start, step)


@dataclass(frozen=True)
class StockInt8Cache:
    """One layer's rows in int8: levels [1, L, Hkv, D] and scales [1, L, Hkv, 1] of each tensor."""

    tensors: tuple[Tensor, ...]
    start: Any

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """Rows are widened where they must be turned; else the quantised operator reads them."""
        for new, levels, scales in zip(rows, self.tensors[::2], self.tensors[1::2]):
            stored, scale = _to_int8(new)
            torch.ops.llama.update_cache(stored, levels, self.start)
            torch.ops.llama.update_cache(scale, scales, self.start)
        if len(rows) == 1 and step.cos is not None:
            levels, scales = self.tensors
            return _attend(q, (levels.float() * scales,), self.start, step)
        return self._attend_int8(q, step)

    def _attend_int8(self, q: Tensor, step: Step) -> Tensor:
        levels, scale = _to_int8(q)
        keys, key_scales, values, value_scales = (*self.tensors, *self.tensors)[:4]
        zeros = torch.zeros_like(scale, dtype=torch.int8)
        row_zeros = torch.zeros(key_scales.shape, dtype=torch.int8)
        out: Tensor = torch.ops.llama.custom_quantized_sdpa(
            levels,
            keys,
            values,
            self.start,
            None,
            0.0,
            True,
            step.scale,
            zeros,
            scale,
            row_zeros,
            key_scales,
            row_zeros,
            value_scales,
        )
        return out


def _attend(q: Tensor, tensors: tuple[Tensor, ...], start: Any, step: Step) -> Tensor:
    keys, values = tensors[0], tensors[-1]
    if len(tensors) == 1 and step.cos is not None and step.sin is not None:
        length = keys.shape[1]
        keys = rotate(keys, step.cos[:length].unsqueeze(1), step.sin[:length].unsqueeze(1))
    out: Tensor = torch.ops.llama.custom_sdpa(q, keys, values, start, None, 0.0, True, step.scale)
    return out


def _to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [..., D] as int8 and float scales [..., 1], as `row_codec.encode` rounds them."""
    scale = rows.abs().amax(-1, keepdim=True) / _LEVELS
    safe = torch.where(scale > 0, scale, 1.0)
    return (rows / safe).round().clamp(-_LEVELS, _LEVELS).to(torch.int8), scale
