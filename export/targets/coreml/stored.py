"""Matrices that a traced program names instead of holding, so that they exist once.

A tracer and a converter copy what a program holds several times. Here the traced graph has
`onekv_coreml::stored(name, first, shape)`, and `weights.py` puts the rounded values in its place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onekv.errors import OnekvError
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.spec import ModelSpec
from onekv.export.targets import LowerRequest
from onekv.export.targets.coreml.rounding import (
    Dense,
    Form,
    Palette,
    is_matrix,
    own_rounding,
    scaled,
)
from onekv.quantize.numbers import Number

_library = torch.library.Library("onekv_coreml", "FRAGMENT")
_library.define("stored(str name, int first, int[] shape) -> Tensor")


@functools.cache
def zeros(shape: tuple[int, ...]) -> Tensor:
    """Tracing needs shapes only. A tracer keeps every tensor: those of one shape share this."""
    return torch.zeros(shape, dtype=torch.half)


def _stored(name: str, first: int, shape: Sequence[int]) -> Tensor:
    return zeros(tuple(shape)).view(shape)


_library.impl("stored", _stored, "CompositeExplicitAutograd")


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix [rows, columns] by the name of its parameter."""

    name: str
    rows: int
    columns: int

    def matrix(self) -> Tensor:
        """The whole, fp16 [rows, columns]."""
        whole: Tensor = torch.ops.onekv_coreml.stored(self.name, 0, [self.rows, self.columns])
        return whole

    def convolution(self, first: int = 0, count: int | None = None) -> Tensor:
        """Rows from `first` on as the weight of a 1x1 convolution, fp16 [count, columns, 1, 1]."""
        shape = [self.rows if count is None else count, self.columns, 1, 1]
        part: Tensor = torch.ops.onekv_coreml.stored(self.name, first, shape)
        return part


class StoredLinear(nn.Module):
    """A linear layer over a stored matrix."""

    def __init__(self, stored: StoredMatrix, bias: Tensor | None) -> None:
        super().__init__()
        self.stored, self.bias = stored, bias

    @property
    def weight(self) -> Tensor:
        """Where a `Decoder` reads its head."""
        return self.stored.matrix()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class StoredEmbedding(nn.Module):
    """An embedding over a stored matrix."""

    def __init__(self, stored: StoredMatrix) -> None:
        super().__init__()
        self.stored = stored

    @property
    def weight(self) -> Tensor:
        """Where a `Decoder` reads its tied head."""
        return self.stored.matrix()

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


def stored_forms(
    request: LowerRequest, rounding: Number
) -> tuple[dict[str, Tensor], dict[str, Form]]:
    """A decoder's state in fp16, and its matrices in the forms that the package stores.

    `rounding` is the format of matrices that were not rounded before. In the state matrices
    become zeros that take no memory. One is read after the other, and the last is let go.

    Raises:
        OnekvError: a weight that fp16 cannot hold.
    """
    state = dict(request.load())
    kept: dict[str, Tensor] = {}
    forms: dict[str, Form] = {}
    for name in list(state):
        tensor = state.pop(name)
        if name in request.quantised:
            forms[name] = scaled(request.quantised[name])
        else:
            tensor = _half(name, tensor)
            if is_matrix(name, tensor.shape):
                forms[name] = _form(tensor, rounding)
        if name in forms:
            tensor = torch.zeros((), dtype=torch.half).expand(tensor.shape)
        kept[name] = tensor
        request.release()
    return kept, forms


def _form(matrix: Tensor, rounding: Number) -> Form:
    rounded = own_rounding(matrix, rounding)
    if rounded is None:
        return Dense(matrix.numpy())
    return rounded if isinstance(rounded, Palette) else scaled(rounded)


def _half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half()
    if not half.isfinite().all():
        raise OnekvError(
            f"{name} has values that fp16 cannot hold, and Core ML computes in fp16",
            "Check the checkpoint for overflows, or export to another runtime.",
        )
    return half


def stored_decoder(spec: ModelSpec, kept: dict[str, Tensor], context: int) -> Decoder:
    """A decoder that names its matrices; `kept` is what `stored_forms` gave."""
    decoder = build_decoder(spec, kept, context).requires_grad_(False)
    for path, parent in list(decoder.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | nn.Embedding):
                setattr(parent, name, _naming(child, f"{path}.{name}.weight".lstrip(".")))
    return decoder


def _naming(module: nn.Linear | nn.Embedding, name: str) -> nn.Module:
    if not is_matrix(name, module.weight.shape):
        return module
    stored = StoredMatrix(name, *module.weight.shape)
    if isinstance(module, nn.Linear):
        return StoredLinear(stored, module.bias)
    return StoredEmbedding(stored)
