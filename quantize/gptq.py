"""GPTQ (Frantar et al., arXiv 2210.17323) on onekv's grid: each column's error moves to the next.

The algorithm is restated because the libraries that carry it need a GPU (torchao 0.18), another
torch, or a grid of their own; on theirs the dequantised values would differ between targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight, best_scales, check_finite, to_levels

# Added to the Hessian's diagonal, as a share of its mean.
_DAMPING = 0.01

# Columns whose errors are gathered before they reach the columns beyond.
_BLOCK = 128


def quantise_calibrated(
    weight: Tensor, hessian: Tensor, number: Number, group: int
) -> QuantisedWeight:
    """Round a matrix [rows, columns] so that its products with calibration inputs change least.

    hessian: [columns, columns], the sum of x x^T over inputs x. Inputs that are always 0 leave
    their columns to plain rounding.

    Raises:
        OnekvError: values that are not finite, or scales that float16 cannot hold.
    """
    check_finite(weight)
    rest = weight.float().clone()
    factor = _inverse_factor(hessian)
    rows, columns = weight.shape
    values = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, columns // group)
    step = min(group, _BLOCK)
    for start in range(0, columns, step):
        end = min(start + step, columns)
        if start % group == 0:
            chosen = best_scales(rest[:, None, start : start + group], number)[:, 0]
            scales[:, start // group] = chosen
        block, errors = rest[:, start:end], torch.empty(rows, end - start)
        for column in range(end - start):
            level = to_levels(block[:, column : column + 1], chosen, number)[:, 0]
            values[:, start + column] = level
            own = factor[start + column, start + column : end]
            error = (block[:, column] - level * chosen) / own[0]
            block[:, column:] -= torch.outer(error, own)
            errors[:, column] = error
        rest[:, end:] -= errors @ factor[start:end, end:]
    return QuantisedWeight(number, values, scales)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse."""
    damped = hessian.double()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1.0
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
