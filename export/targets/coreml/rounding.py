"""Weights rounded to what Core ML unpacks: integers with scales, or indices into palettes.

Every function takes a matrix float [out, in] and gives numpy arrays; none needs coremltools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onekv.export.targets.coreml.options import Int4, Weights

BLOCK = 32
"""Inputs that share a scale in int4 blocks."""

PALETTE_ROWS = 16
"""Outputs that share a palette."""

SMALLEST = 2048
"""Matrices with fewer elements stay fp16."""

_ITERATIONS = 30
_CHUNK = 1 << 22
"""Elements that are rounded at a time, so that no float copy of a whole matrix is made."""


@dataclass(frozen=True)
class Dense:
    """The weight itself: fp16 [out, in]."""

    value: NDArray[np.float16]

    def unpacked(self) -> Tensor:
        """The matrix that a device computes with, float32."""
        return torch.from_numpy(self.value).float()

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

    def unpacked(self) -> Tensor:
        """The matrix that a device computes with, float32 with the values of fp16."""
        data, scale = torch.from_numpy(self.data).float(), torch.from_numpy(self.scale).float()
        blocks = data.reshape(len(data), scale.shape[1], -1) * scale.unsqueeze(-1)
        return blocks.reshape(data.shape).half().float()


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

    def unpacked(self) -> Tensor:
        """The matrix that a device computes with, float32."""
        rows = len(self.index) // len(self.table)
        index = torch.from_numpy(self.index).long().reshape(len(self.table), -1)
        table = torch.from_numpy(self.table).float()
        return table.gather(1, index).reshape(rows * len(table), -1)


Form = Dense | Scaled | Palette


def stored_form(matrix: Tensor, scheme: str) -> Form:
    """The form of an fp16 matrix under a scheme: fp16, int8, or int4 as `block` or `palette`.

    A matrix whose shape the scheme's groups do not divide gets a scale per row.
    """
    if scheme == Weights.FP16 or matrix.numel() < SMALLEST:
        return Dense(matrix.numpy())
    if scheme == Int4.PALETTE and matrix.shape[0] % PALETTE_ROWS == 0:
        return palette(matrix)
    blocked = scheme == Int4.BLOCK and matrix.shape[1] % BLOCK == 0
    return scaled(matrix, 8 if scheme == Weights.INT8 else 4, BLOCK if blocked else None)


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter of a `Decoder` takes the form of the scheme; positions do not."""
    return len(shape) == 2 and "embed_positions" not in name


def scaled(weight: Tensor, bits: int, block: int | None) -> Scaled:
    """Symmetric rounding to nearest with one scale per `block` inputs, or per row."""
    width = weight.shape[1]
    parts = [_scaled(part, bits, block or width) for part in weight.split(-(-_CHUNK // width))]
    data, scale = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
    return Scaled(data, scale, bits)


def _scaled(weight: Tensor, bits: int, block: int) -> tuple[Tensor, Tensor]:
    largest = 2 ** (bits - 1) - 1
    blocks = weight.float().reshape(len(weight), -1, block)
    scale = (blocks.abs().amax(dim=-1, keepdim=True) / largest).half()
    # A block of zeros, or one whose scale fp16 cannot hold, becomes zeros.
    data = torch.where(scale > 0, blocks / scale.float().clamp(min=1e-30), 0)
    data = data.round_().clamp_(-largest, largest).to(torch.int8)
    return data.reshape(weight.shape), scale.squeeze(-1)


def palette(weight: Tensor, rows: int = PALETTE_ROWS) -> Palette:
    """4-bit palettes by k-means (Lloyd's iterations), one for every `rows` rows of the matrix.

    Values are sorted once; a cluster is then a range of them, whose sum comes from prefix
    sums. That takes seconds where a general k-means takes minutes.
    """
    groups = weight.reshape(weight.shape[0] // rows, -1)
    index = torch.empty(groups.shape, dtype=torch.uint8)
    table = torch.empty(len(groups), 16)
    for number, half in enumerate(groups):
        values = half.float()
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
