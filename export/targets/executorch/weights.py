"""Integer weights in the form that XNNPACK and the quantised embedding recognise.

Linear layers are 8da8w and 8da4w: each token's activations are rounded to 8 bits as they come,
each with a scale and zero point of its own, and meet the integers. The integers are the export's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchao.quantization import quant_primitives

from onekv.export.model.decoder import Decoder
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight

# torchao's operators themselves: its functions around them switch gradients off, and taking that
# out of a traced program is most of the time of tracing.
_choose_qparams = quant_primitives._choose_qparams_affine
_quantize = quant_primitives._quantize_affine
_dequantize = quant_primitives._dequantize_affine

# The range that a format declares: int4's is how XNNPACK and the embedding know that it is int4.
_RANGES = {Number.INT8: (-128, 127), Number.INT4: (-8, 7)}


class IntegerMatrix(nn.Module):
    """A matrix [rows, columns] as integers, dequantised where it is used."""

    values: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, weight: QuantisedWeight) -> None:
        super().__init__()
        self.block, self.range = [1, weight.group], _RANGES[weight.number]
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("zeros", torch.zeros(weight.scales.shape, dtype=torch.int8))

    def forward(self) -> Tensor:
        matrix: Tensor = _dequantize(
            self.values, self.block, self.scales, self.zeros, torch.int8, *self.range
        )
        return matrix


class IntegerLinear(nn.Module):
    """A linear layer of integers."""

    def __init__(self, matrix: IntegerMatrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(rounded(x), self.matrix(), self.bias)


class IntegerEmbedding(nn.Module):
    """An embedding whose rows are dequantised as they are looked up."""

    def __init__(self, matrix: IntegerMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.matrix())


def rounded(x: Tensor) -> Tensor:
    """Activations [..., K] rounded to 8 bits per token, and back."""
    block = [1] * (x.dim() - 1) + [x.shape[-1]]
    scale, zero = _choose_qparams(
        x,
        "ASYMMETRIC",
        block,
        torch.int8,
        -128,
        127,
        torch.finfo(torch.float32).eps,
        torch.float32,
        torch.int8,
    )
    levels = _quantize(x, block, scale, zero, torch.int8, -128, 127)
    back: Tensor = _dequantize(levels, block, scale, zero, torch.int8, -128, 127)
    return back


def exchange_weights(decoder: Decoder, quantised: Mapping[str, QuantisedWeight]) -> nn.Module:
    """Put integers where the decoder has them; gives what computes the logits from hidden states.

    The float weights of the same names are let go of.
    """
    matrices = {name: IntegerMatrix(weight) for name, weight in quantised.items()}
    for path, module in list(decoder.named_modules()):
        matrix = matrices.get(f"{path}.weight")
        if matrix is not None and path:
            parent = decoder.get_submodule(path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], _integer_module(module, matrix))
    head = matrices.get("embed_tokens.weight" if decoder.spec.tied_head else "lm_head.weight")
    return FloatHead(decoder.head) if head is None else IntegerLinear(head)


def _integer_module(module: nn.Module, matrix: IntegerMatrix) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return IntegerEmbedding(matrix)
    assert isinstance(module, nn.Linear)
    return IntegerLinear(matrix, module.bias)


class FloatHead(nn.Module):
    """Logits by a float matrix, which may be the embedding's."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight)
