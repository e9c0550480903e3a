"""Weights rounded to integers, once per export: every target stores these values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onekv.errors import UsageError
from onekv.quantize.numbers import Number

INT4_GROUP = 32
"""Columns that share a scale in int4 weights."""

# A table of learned positions is added, never multiplied, and small.
_POSITIONS = "embed_positions.weight"


@dataclass(frozen=True)
class QuantisedWeight:
    """weight[r, c] = values[r, c] * scales[r, c // group].

    values: int8 [rows, columns], within -8..7 for int4 and -127..127 for int8.
    scales: float32 [rows, columns / group]; `group` is the columns that share one.
    """

    number: Number
    values: Tensor
    scales: Tensor

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return int(self.values.shape[1] // self.scales.shape[1])

    def dequantise(self) -> Tensor:
        """The matrix that a runtime computes with, float32 [rows, columns]."""
        rows, columns = self.values.shape
        grouped = self.values.float().reshape(rows, -1, self.group) * self.scales.unsqueeze(-1)
        return grouped.reshape(rows, columns)


_LARGEST = {Number.INT8: 127, Number.INT4: 7}


def quantise(weight: Tensor, number: Number, group: int) -> QuantisedWeight:
    """Round a matrix [rows, columns] to the nearest integers, symmetric about zero."""
    largest = _LARGEST[number]
    grouped = weight.float().reshape(weight.shape[0], -1, group)
    scales = grouped.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny) / largest
    values = (grouped / scales.unsqueeze(-1)).round_().clamp_(-largest, largest)
    return QuantisedWeight(number, values.to(torch.int8).reshape(weight.shape), scales)


def quantise_weights(
    state: Mapping[str, Tensor], number: Number, progress: Callable[[int, int], None]
) -> dict[str, QuantisedWeight]:
    """Round every matrix of a decoder's state, one after the other; the rest stays as it is.

    int8 has one scale per row, int4 one per `INT4_GROUP` columns.
    """
    names = [name for name, tensor in state.items() if tensor.ndim == 2]
    names = [name for name in names if name != _POSITIONS]
    rounded = {}
    for index, name in enumerate(names):
        columns = state[name].shape[1]
        group = INT4_GROUP if number is Number.INT4 else columns
        if columns % group:
            raise UsageError(f"{name} has {columns} columns, which groups of {group} do not divide")
        rounded[name] = quantise(state[name], number, group)
        progress(index + 1, len(names))
    return rounded
