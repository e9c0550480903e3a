"""The forms in which Core ML holds a matrix: floats, integers with scales, or palettes.

None of this needs coremltools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onekv.export.targets.coreml.options import PALETTE_ROWS
from onekv.quantize.numbers import Number
from onekv.quantize.plan import SMALLEST
from onekv.quantize.weights import QuantisedWeight, quantise

_ITERATIONS = 30


@dataclass(frozen=True)
class Dense:
    """The weight itself: fp16 [out, in]."""

    value: NDArray[np.float16]

    def rows(self, first: int, count: int) -> Dense:
        """Some of the outputs."""
        return Dense(self.value[first : first + count])


@dataclass(frozen=True)
class Scaled:
    """weight = scale * data: data int8 [out, in] within `bits`, scale fp16 [out, blocks]."""

    data: NDArray[np.int8]
    scale: NDArray[np.float16]
    bits: int

    def rows(self, first: int, count: int) -> Scaled:
        """Some of the outputs."""
        chosen = slice(first, first + count)
        return Scaled(self.data[chosen], self.scale[chosen], self.bits)


@dataclass(frozen=True)
class Palette:
    """weight = table[index]: index uint8 [out, in] below 16, table fp16 [out / rows, 16]."""

    index: NDArray[np.uint8]
    table: NDArray[np.float16]

    def rows(self, first: int, count: int) -> Palette:
        """Some of the outputs; `first` and `count` are multiples of those that share a palette."""
        each = len(self.index) // len(self.table)
        tables = slice(first // each, (first + count) // each)
        return Palette(self.index[first : first + count], self.table[tables])

    def dequantise(self) -> Tensor:
        """The matrix that a device computes with, float32."""
        index = torch.from_numpy(self.index).long().reshape(len(self.table), -1)
        table = torch.from_numpy(self.table).float()
        return table.gather(1, index).reshape(self.index.shape)


Form = Dense | Scaled | Palette


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter of a `Decoder` is a matrix of its own: all but learned positions."""
    return len(shape) == 2 and "embed_positions" not in name


def scaled(weight: QuantisedWeight) -> Scaled:
    """Rounded weights as Core ML holds them; float16 holds their scales exactly."""
    bits = 8 if weight.number is Number.INT8 else 4
    return Scaled(weight.values.numpy(), weight.scales.half().numpy(), bits)


def own_rounding(weight: Tensor, number: Number) -> QuantisedWeight | Palette | None:
    """A matrix for the Neural Engine: int8 with a scale per row, or 4-bit palettes.

    Rows that palettes do not divide get a scale each; None for what stays a float.
    """
    if number is Number.FP16 or weight.numel() < SMALLEST:
        return None
    if number is Number.INT4 and len(weight) % PALETTE_ROWS == 0:
        return palette(weight)
    return quantise(weight, number, weight.shape[1])


def palette(weight: Tensor, rows: int = PALETTE_ROWS) -> Palette:
    """4-bit palettes by k-means (Lloyd's iterations), one for every `rows` rows of the matrix.

    Values are sorted once; a cluster is then a range of them, whose sum comes from prefix
    sums. That takes seconds where a general k-means takes minutes.
    """
    groups = weight.reshape(len(weight) // rows, -1)
    index = torch.empty(groups.shape, dtype=torch.uint8)
    table = torch.empty(len(groups), 16)
    for number, group in enumerate(groups):
        values = group.float()
        table[number] = _lloyd(values.sort().values)
        table[number] = table[number].half().float().sort().values
        edges = (table[number, 1:] + table[number, :-1]) / 2
        index[number] = torch.bucketize(values, edges).to(torch.uint8)
    return Palette(index.reshape(weight.shape).numpy(), table.half().numpy())


def _lloyd(values: Tensor) -> Tensor:
    """16 ascending centres of sorted values, starting from equal shares of them."""
    sums = torch.cat((torch.zeros(1, dtype=torch.float64), values.double().cumsum(0)))
    shares = torch.linspace(0, len(values) - 1, 33)[1::2]
    centres = values[shares.long()].double()
    for _ in range(_ITERATIONS):
        edges = torch.searchsorted(values, ((centres[1:] + centres[:-1]) / 2).float())
        edges = torch.cat((torch.tensor([0]), edges, torch.tensor([len(values)])))
        count = edges.diff()
        means = (sums[edges[1:]] - sums[edges[:-1]]) / count.clamp(min=1)
        moved = torch.where(count > 0, means, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.float()
