"""Parts of the decoder in forms that XNNPACK takes whole, equal in what they compute.

What a delegate does not take splits it in two: with these there is one delegate between two
attentions, instead of five and a dozen copies in portable kernels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onekv.export.model.decoder import Decoder, RMSNorm, Rotation
from onekv.export.options import Ops
from onekv.runtime.adapters import torch_ops


class _Mean(nn.Module):
    """The mean over the last axis as a product: XNNPACK has no reduction of one axis."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((1, size), 1 / size))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class ProductRMSNorm(nn.Module):
    """`RMSNorm` in float32."""

    def __init__(self, norm: RMSNorm, mean: _Mean) -> None:
        super().__init__()
        self.weight, self.eps, self.mean = norm.weight, norm.eps, mean

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.weight * (x * torch.rsqrt(self.mean(x * x) + self.eps))
        return out


class ProductLayerNorm(nn.Module):
    """`nn.LayerNorm` over the last axis, in float32."""

    def __init__(self, norm: nn.LayerNorm, mean: _Mean) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.mean = norm.weight, norm.bias, norm.eps, mean

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean(x)
        scaled = centred * torch.rsqrt(self.mean(centred * centred) + self.eps)
        out: Tensor = scaled * self.weight + self.bias
        return out


class ProductRotation(nn.Module):
    """`Rotation` whose exchange of halves is a product: slices of a dynamic shape are portable."""

    exchange: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        half = torch.eye(head_dim // 2)
        zero = torch.zeros_like(half)
        # Row i < D/2 is minus element i + D/2, row i + D/2 is element i.
        rows = torch.cat((torch.cat((zero, -half), 1), torch.cat((half, zero), 1)))
        self.register_buffer("exchange", rows)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, S, H, D]; cos, sin [S, 1, D/2]."""
        # Equal ones are merged after tracing, so that all layers share these two.
        cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
        return x * cos + F.linear(x, self.exchange) * sin


class OperatorRotation(nn.Module):
    """`Rotation` by our operator, beside attention, which ends the delegate anyway.

    XNNPACK would wake its threads for each of these small products.
    """

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, S, H, D]; cos, sin [S, 1, D/2]."""
        out: Tensor = torch_ops.rotate(x, cos, sin)
        return out


class ProductGELU(nn.Module):
    """`nn.GELU(approximate="tanh")`: XNNPACK computes the exact one instead and says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + torch.tanh(inner))


def exchange_modules(decoder: Decoder, ops: Ops) -> None:
    """Put these forms into a float32 decoder."""
    mean = _Mean(decoder.spec.hidden_size)
    stock = ops is Ops.STOCK
    rotation = ProductRotation(decoder.spec.head_dim) if stock else OperatorRotation()
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, RMSNorm):
                setattr(module, name, ProductRMSNorm(child, mean))
            elif isinstance(child, nn.LayerNorm):
                setattr(module, name, ProductLayerNorm(child, mean))
            elif isinstance(child, Rotation):
                setattr(module, name, rotation)
            elif isinstance(child, nn.GELU) and child.approximate == "tanh":
                setattr(module, name, ProductGELU())
