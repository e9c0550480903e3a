"""Weights rounded to integers, once per export: every target stores these values.

Scales are chosen so that all targets can hold them: those of int4 are values of both bfloat16,
which XNNPACK stores, and float16, which the other runtimes' files store; times an integer of
4 bits they are exact in float16. Those of int8 are values of float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onekv.errors import OnekvError
from onekv.quantize.numbers import Number
from onekv.quantize.plan import WeightPlan

# Smallest and largest integer. int8 leaves -128 out, as kernels that multiply pairs need.
LEVELS = {Number.INT8: (-127, 127), Number.INT4: (-8, 7)}

# Largest magnitudes that are tried as the end of an int4 group's range, relative to its own.
# Cutting off the rarest values makes the steps of all others finer; 7/8 puts the largest at -8.
_RANGES = (1.0, 0.96, 0.92, 0.875, 0.83, 0.79)

# Elements at once: their work copies stay in the processor's cache.
_CHUNK = 1 << 20

_HALF_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class QuantisedWeight:
    """weight[r, c] = values[r, c] * scales[r, c // group].

    values: int8 [rows, columns], within -8..7 for int4 and -127..127 for int8.
    scales: float32 [rows, columns / group], above 0; `group` is the columns that share one.
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
        grouped = self.values.float().reshape(rows, -1, self.group)
        return grouped.mul_(self.scales.unsqueeze(-1)).reshape(rows, columns)


def quantise(weight: Tensor, number: Number, group: int) -> QuantisedWeight:
    """Round a matrix [rows, columns] to integers, symmetric about zero.

    int8 spans each group's largest magnitude. int4 takes the range, out of a few, whose
    squared error is least.

    Raises:
        OnekvError: values that are not finite, or scales that float16 cannot hold.
    """
    check_finite(weight)
    rows, columns = weight.shape
    values = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, columns // group)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        grouped = weight[part].float().reshape(-1, columns // group, group)
        chosen = best_scales(grouped, number)
        scales[part] = chosen
        values[part] = to_levels(grouped, chosen, number).reshape(-1, columns)
    return QuantisedWeight(number, values, scales)


def check_finite(weight: Tensor) -> None:
    """Raise OnekvError for a matrix with NaN or infinity."""
    # A sum shows both without a copy; one that only overflows is looked at again.
    if not weight.sum().isfinite() and not weight.isfinite().all():
        raise OnekvError("it has values that are not finite", "Check the checkpoint for overflows.")


def best_scales(grouped: Tensor, number: Number) -> Tensor:
    """The scales [..., groups] of weights [..., groups, group]."""
    largest = grouped.abs().amax(-1)
    base = largest / LEVELS[number][1]
    if (base > _HALF_MAX).any():
        raise OnekvError(f"its values reach {float(largest.max()):.3g}, beyond what a scale holds")
    if number is Number.INT8:
        return storable(base, number)
    best, least = torch.empty_like(base), torch.full_like(base, torch.inf)
    for fraction in _RANGES:
        scales = storable(base * fraction, number)
        restored = to_levels(grouped, scales, number) * scales.unsqueeze(-1)
        error = (restored - grouped).square_().sum(-1)
        better = error < least
        best, least = torch.where(better, scales, best), torch.where(better, error, least)
    return best


def storable(scales: Tensor, number: Number) -> Tensor:
    """The nearest scales that every target can store, float32; 1 where only 0 is near."""
    if number is Number.INT4:
        scales = scales.bfloat16().float()
    scales = scales.half().float()
    return torch.where(scales > 0, scales, 1.0)


def to_levels(grouped: Tensor, scales: Tensor, number: Number) -> Tensor:
    """The nearest integers of weights [..., groups, group], as int8."""
    low, high = LEVELS[number]
    return (grouped / scales.unsqueeze(-1)).round_().clamp_(low, high).to(torch.int8)


def quantise_weights(
    state: Mapping[str, Tensor], plan: WeightPlan, progress: Callable[[int, int], None]
) -> dict[str, QuantisedWeight]:
    """Round the matrices that a plan names, one after the other.

    Raises:
        OnekvError: a matrix cannot be rounded; it is named.
    """
    rounded = {}
    for index, tensor in enumerate(plan.rounded):
        try:
            weight = quantise(state[tensor.name], tensor.number, tensor.group)
        except OnekvError as error:
            raise OnekvError(f"{tensor.name}: {error.message}", error.fix) from None
        rounded[tensor.name] = weight
        progress(index + 1, len(plan.rounded))
    return rounded
