"""Activations rounded to 8 bits per token, as runtimes do that multiply integers by integers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onekv.export.model.decoder import Decoder

_LOW, _HIGH = -128, 127
_SMALLEST_SCALE = torch.finfo(torch.float32).eps


def rounded(x: Tensor) -> Tensor:
    """x [..., K] to 8 bits and back: a scale and a zero point for each row, zero being exact."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (_HIGH - _LOW)).clamp(min=_SMALLEST_SCALE)
    zero = (_LOW - (low / scale).round()).clamp(_LOW, _HIGH)
    levels = ((x / scale).round() + zero).clamp(_LOW, _HIGH)
    return (levels - zero) * scale


def round_activations(decoder: Decoder, names: Collection[str]) -> None:
    """Let the layers whose weights are named round what they multiply, the head included."""
    for path, module in decoder.named_modules():
        if isinstance(module, nn.Linear) and f"{path}.weight" in names:
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    head = "embed_tokens.weight" if decoder.spec.tied_head else "lm_head.weight"
    if head in names:
        decoder.norm.register_forward_hook(lambda _, inputs, output: rounded(output))
