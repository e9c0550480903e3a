"""Activations rounded to 8 bits per token, as runtimes do that multiply integers by integers.

And how much such a model hangs on the last bits of its sums, which no two runtimes share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onekv.export.model.decoder import Decoder

_LOW, _HIGH = -128, 127
_SMALLEST_SCALE = torch.finfo(torch.float32).eps
# What another order of a few hundred terms does to a sum, relative to the sums beside it.
_DISTURBANCE = 1e-6


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


@contextmanager
def disturbed(decoder: nn.Module) -> Iterator[None]:
    """Let every linear layer's sums come out as if they had been added in another order.

    The disturbance is seeded: the same calls give the same numbers.
    """
    generator = torch.Generator().manual_seed(0)

    def disturb(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        size = _DISTURBANCE * output.square().mean(-1, keepdim=True).sqrt()
        return output + size * torch.randn(output.shape, generator=generator)

    linear = (module for module in decoder.modules() if isinstance(module, nn.Linear))
    hooks = [module.register_forward_hook(disturb) for module in linear]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
