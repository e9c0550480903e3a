"""The decoder with its caches as states: one tensor for all layers, two for the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onekv.export.model.cache import Step
from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from onekv.runtime.adapters import torch_ops


def state_names(spec: ModelSpec) -> tuple[str, ...]:
    """The states of a package for this model."""
    return ("cache",) if spec.sharing.one_tensor else ("key_cache", "value_cache")


def state_shape(spec: ModelSpec, context: int) -> tuple[int, int, int, int]:
    """[layers, kv heads, context, head_dim]: several states would fail on the Neural Engine."""
    return (spec.layers, spec.kv_heads, context, spec.head_dim)


@dataclass(frozen=True)
class StateCache:
    """One layer's slice of the states; implements `LayerCache`."""

    states: tuple[Tensor, ...]
    layer: int

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        views = [state[self.layer : self.layer + 1] for state in self.states]
        if len(views) == 1:
            out: Tensor = torch_ops.attend(
                q, rows[0], views[0], step.pos, step.cos, step.sin, None, step.scale, step.window
            )
        else:
            out = torch_ops.attend_kv(q, *rows, *views, step.pos, step.scale, step.window)
        return out


class WideLayerNorm(nn.Module):
    """LayerNorm computed in float32, as RMSNorm is, and returned in the input's type."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.float())
        return out.to(x.dtype)


def widen_norms(decoder: Decoder) -> None:
    """Exchange the LayerNorms of an fp16 decoder for ones that compute in float32."""
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, WideLayerNorm(child))


class StatefulDecoder(nn.Module):
    """tokens int32 [1, S] and pos int32 [1] to logits, with the caches as buffers."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        super().__init__()
        spec = decoder.spec
        self.decoder, self.layers, self.names = decoder, spec.layers, state_names(spec)
        for name in self.names:
            self.register_buffer(name, torch.zeros(state_shape(spec, context), dtype=torch.half))

    def forward(self, tokens: Tensor, pos: Tensor) -> tuple[Tensor, ...]:
        states = tuple(getattr(self, name) for name in self.names)
        caches = [StateCache(states, layer) for layer in range(self.layers)]
        return self.logits(tokens, pos, caches)

    def logits(self, tokens: Tensor, pos: Tensor, caches: list[StateCache]) -> tuple[Tensor, ...]:
        """[1, S, vocab], in as many parts as the profile needs."""
        return (self.decoder(tokens, pos, caches),)
