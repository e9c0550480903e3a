"""The Neural Engine's form of a decoder: activations [1, C, 1, S] and 1x1 convolutions.

Parts of a `Decoder` are replaced by ones of another layout; its own code runs unchanged.
The layout is the one of Apple's "Deploying Transformers on the Apple Neural Engine" (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onekv.export.model.decoder import Decoder, RMSNorm
from onekv.export.targets.coreml.options import head_parts
from onekv.export.targets.coreml.states import StateCache, StatefulDecoder
from onekv.export.targets.coreml.stored import StoredLinear, StoredMatrix

_library = torch.library.Library("onekv_coreml", "FRAGMENT")
_library.define("channel_norm(Tensor x, Tensor? weight, Tensor? bias, float eps) -> Tensor")


def _channel_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    last = x.movedim(1, -1).contiguous()
    return F.layer_norm(last, last.shape[-1:], weight, bias, eps).movedim(-1, 1)


_library.impl("channel_norm", _channel_norm, "CompositeExplicitAutograd")
channel_norm = torch.ops.onekv_coreml.channel_norm


def to_channels(x: Tensor) -> Tensor:
    """[1, S, C] to [1, C, 1, S]."""
    return x.transpose(1, 2).unsqueeze(2)


def to_rows(x: Tensor) -> Tensor:
    """[1, C, 1, S] to [1, S, C]."""
    return x.squeeze(2).transpose(1, 2)


class ChannelEmbedding(nn.Module):
    """Ids [1, S] or [S] to [1, C, 1, S]."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, ids: Tensor) -> Tensor:
        return to_channels(self.embedding(ids.reshape(1, -1)))


class ChannelLinear(nn.Module):
    """A linear layer as a 1x1 convolution; `rows_in` and `rows_out` say where rows are kept."""

    def __init__(self, linear: StoredLinear, rows_in: bool = False, rows_out: bool = False) -> None:
        super().__init__()
        self.linear, self.rows_in, self.rows_out = linear, rows_in, rows_out

    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.stored.convolution()
        y = F.conv2d(to_channels(x) if self.rows_in else x, weight, self.linear.bias)
        return to_rows(y) if self.rows_out else y


class ChannelNorm(nn.Module):
    """LayerNorm over channels. RMSNorm is the LayerNorm of [x, -x], whose mean is 0."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.mirrored = isinstance(norm, RMSNorm)
        self.eps: float = norm.eps  # type: ignore[assignment]
        self.weight: Tensor = norm.weight  # type: ignore[assignment]
        self.bias: Tensor | None = getattr(norm, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        if not self.mirrored:
            out: Tensor = channel_norm(x, self.weight, self.bias, self.eps)
            return out
        mirrored: Tensor = channel_norm(torch.cat((x, -x), dim=1), None, None, self.eps)
        return mirrored[:, : x.shape[1]] * self.weight[None, :, None, None]


class ChannelsFirstDecoder(StatefulDecoder):
    """A stateful decoder whose parts were exchanged; logits come in parts of equal width."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        super().__init__(decoder, context)
        holder = decoder.embed_tokens if decoder.spec.tied_head else decoder.lm_head
        self.head: StoredMatrix = holder.stored  # type: ignore[assignment]
        _exchange(decoder)

    def logits(self, tokens: Tensor, pos: Tensor, caches: list[StateCache]) -> tuple[Tensor, ...]:
        hidden = self.decoder.hidden(tokens, pos, caches)
        parts = head_parts(self.decoder.spec.vocab_size)
        return tuple(to_rows(F.conv2d(hidden, self.head.convolution(*part))) for part in parts)


def _exchange(decoder: Decoder) -> None:
    _replace(decoder, "embed_tokens", ChannelEmbedding)
    _replace(decoder, "embed_positions", ChannelEmbedding)
    _replace(decoder, "norm", ChannelNorm)
    for layer in decoder.layers:
        attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
        _replace(layer, "input_layernorm", ChannelNorm)
        _replace(layer, "post_attention_layernorm", ChannelNorm)
        for name in ("q_proj", "k_proj", "v_proj"):
            _replace(attention, name, partial(ChannelLinear, rows_out=True))
        _replace(attention, "o_proj", partial(ChannelLinear, rows_in=True))
        for name in ("gate_proj", "up_proj", "down_proj"):
            _replace(mlp, name, ChannelLinear)


def _replace(parent: nn.Module, name: str, form: Callable[[Any], nn.Module]) -> None:
    """Exchange a part, where the parent has it, for its form in the other layout."""
    if hasattr(parent, name):
        setattr(parent, name, form(getattr(parent, name)))
