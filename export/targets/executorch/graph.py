"""The decoder with its caches as buffers: what is traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from onekv.export.model.cache import LayerCache, OneTensorCache, TwoTensorCache
from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from onekv.runtime.rows import RowFormat


@dataclass(frozen=True)
class OperatorCaches:
    """Caches that our operator reads and writes, head-major, in any row format."""

    spec: ModelSpec
    context: int
    form: RowFormat

    def tensors(self) -> tuple[Tensor, ...]:
        """One layer's tensors [1, Hkv, L, W]; their values are never read."""
        spec = self.spec
        shape = (1, spec.kv_heads, self.context, self.form.last_dim(spec.head_dim))
        dtype = getattr(torch, self.form.torch_dtype)
        return tuple(torch.zeros(shape, dtype=dtype) for _ in range(spec.sharing.cached_tensors))

    def binder(self, pos: Tensor) -> Callable[..., LayerCache]:
        """What makes a layer's cache of its tensors, at one position."""
        return OneTensorCache if self.spec.sharing.one_tensor else TwoTensorCache


class Caches(Protocol):
    """A form of the cache: its tensors, and what a layer does with them."""

    def tensors(self) -> tuple[Tensor, ...]:
        """One layer's tensors; their values are never read."""

    def binder(self, pos: Tensor) -> Callable[..., LayerCache]:
        """What makes a layer's cache of its tensors, at one position."""


class CachedDecoder(nn.Module):
    """tokens int64 [1, S] and pos int64 [1] to logits float32 [1, S, vocab]."""

    def __init__(self, decoder: Decoder, head: nn.Module, caches: Caches) -> None:
        super().__init__()
        self.decoder, self.head, self.caches = decoder, head, caches
        self.names: list[list[str]] = []
        for layer in range(decoder.spec.layers):
            tensors = caches.tensors()
            self.names.append([f"cache_{layer}_{part}" for part in range(len(tensors))])
            for name, tensor in zip(self.names[-1], tensors):
                self.register_buffer(name, tensor)

    def forward(self, tokens: Tensor, pos: Tensor) -> Tensor:
        """The interface of ExecuTorch's text runners."""
        bind = self.caches.binder(pos)
        layers = [bind(*(getattr(self, name) for name in names)) for names in self.names]
        logits: Tensor = self.head(self.decoder.hidden(tokens, pos, layers))
        return logits
