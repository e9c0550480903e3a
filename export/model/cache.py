"""What a layer does with its new rows: the explicit cache that every forward pass is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from onekv.export.model.spec import ModelSpec
from onekv.runtime.adapters import torch_ops
from onekv.runtime.reference import rotate
from onekv.runtime.rows import RowFormat


@dataclass(frozen=True)
class Step:
    """What all layers of one forward pass share.

    pos: int64 [1], tokens already in the cache. cos, sin: the whole tables [T, D/2] by
    position, None without RoPE.
    """

    pos: Tensor
    cos: Tensor | None
    sin: Tensor | None
    scale: float
    window: int


class LayerCache(Protocol):
    """One layer's cache. Two implementations differ in what they keep, not in what they compute."""

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """Keep the new rows and attend over all of them.

        q [B, S, Hq, D], rotated. `rows` is the shared row (c,), not rotated, of a model that
        caches one tensor, else (k, v) with k rotated; each [B, S, Hkv, D]. Gives [B, S, Hq, D].
        """


@dataclass
class OneTensorCache:
    """One tensor [B, Hkv, L, D] that serves as keys and values."""

    rows: Tensor

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        (c,) = rows
        out: Tensor = torch_ops.attend(
            q, c, self.rows, step.pos, step.cos, step.sin, None, step.scale, step.window
        )
        return out


@dataclass
class TwoTensorCache:
    """Keys and values, each [B, Hkv, L, D]: what a model without a shared row needs."""

    keys: Tensor
    values: Tensor

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        k, v = rows
        out: Tensor = torch_ops.attend_kv(
            q, k, v, self.keys, self.values, step.pos, step.scale, step.window
        )
        return out


class WholeSequence:
    """No cache: the rows at hand are all there is. This form has gradients, for training."""

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        keys, values = rows[0], rows[-1]
        length = q.shape[1]
        if len(rows) == 1 and step.cos is not None and step.sin is not None:
            positions = step.pos + torch.arange(length, device=q.device)
            cos, sin = F.embedding(positions, step.cos), F.embedding(positions, step.sin)
            keys = rotate(keys, cos.unsqueeze(1).to(q), sin.unsqueeze(1).to(q))
        mask = None
        if step.window:
            square = torch.ones(length, length, dtype=torch.bool, device=q.device)
            mask = square.tril().triu(1 - step.window)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            scale=step.scale,
            enable_gqa=True,
        )
        return out.transpose(1, 2)


def new_caches(
    spec: ModelSpec,
    length: int,
    form: RowFormat = RowFormat.FP32,
    batch: int = 1,
    parts: int = 1,
) -> Sequence[OneTensorCache | TwoTensorCache]:
    """Empty caches of `length` positions, one per layer; `parts` records make a quantised row."""
    dtype = getattr(torch, form.torch_dtype)
    last = parts * form.last_dim(spec.head_dim, parts) if form.quantised else spec.head_dim

    def tensor() -> Tensor:
        return torch.zeros(batch, spec.kv_heads, length, last, dtype=dtype)

    if spec.sharing.one_tensor:
        return [OneTensorCache(tensor()) for _ in range(spec.layers)]
    return [TwoTensorCache(tensor(), tensor()) for _ in range(spec.layers)]
