"""What one cached tensor allows, exactly, and what it does not."""

from __future__ import annotations

import torch
from torch import Tensor

from onekv.runtime.reference import attend, attend_kv, rotate
from tests.unit.cases import F64, SCALE, Case, largest_error, through_cache


def rotated(case: Case, x: Tensor) -> Tensor:
    return rotate(x, case.angles.cos()[:, None], case.angles.sin()[:, None])


def test_rotating_on_read_equals_a_cache_of_rotated_keys() -> None:
    case = Case(turned_pairs=4)
    keys, values = case.empty_cache(), case.empty_cache()
    expected = attend_kv(
        case.q, rotated(case, case.rows), case.rows, keys, values, torch.tensor([0]), SCALE
    )
    assert largest_error(through_cache(case), expected) < 1e-14


def test_unrotating_the_output_of_a_rotated_cache_is_wrong() -> None:
    case = Case(turned_pairs=4, chunks=(6,))
    out = attend(
        case.q, rotated(case, case.rows), case.empty_cache(), torch.tensor([0]), scale=SCALE
    )
    unrotated = rotate(out, case.angles.cos()[:, None], -case.angles.sin()[:, None])
    assert largest_error(unrotated, through_cache(case)) > 0.1


def test_only_the_distance_of_two_rotations_counts() -> None:
    """An un-rotated cache can be moved to other positions: <R(p)q, R(t)c> needs p - t alone."""
    frequencies = torch.tensor([1.0, 0.1], dtype=F64)
    q, c = torch.randn(2, 1, 6, 1, 4, dtype=F64)

    def shifted(by: int) -> Tensor:
        angles = torch.outer(torch.arange(by, by + 6, dtype=F64), frequencies)
        cos, sin = angles.cos(), angles.sin()
        cache = torch.zeros(1, 1, 6, 4, dtype=F64)
        return attend(rotate(q, cos[:, None], sin[:, None]), c, cache, torch.tensor([0]), cos, sin)

    assert largest_error(shifted(by=1000), shifted(by=0)) < 1e-12


def folded(case: Case, matrix: Tensor) -> Tensor:
    """A^-1 attend(A^-T q, A c): equal to attend(q, c) when A may be folded into the weights."""
    inverse = torch.linalg.inv(matrix)
    cos, sin = case.tables
    q, rows = case.q @ inverse, case.rows @ matrix.T
    out = attend(q, rows, case.empty_cache(), torch.tensor([0]), cos, sin, None, SCALE)
    return out @ inverse.T


def test_an_invertible_matrix_folds_through_a_cache_without_rope() -> None:
    case = Case(chunks=(6,))
    matrix = case.random(case.dim, case.dim, salt=9)
    assert largest_error(folded(case, matrix), through_cache(case)) < 1e-11


def test_a_rotation_of_the_rows_does_not_fold_through_rope() -> None:
    case = Case(chunks=(6,), turned_pairs=4)
    matrix, _ = torch.linalg.qr(case.random(case.dim, case.dim, salt=9))
    assert largest_error(folded(case, matrix), through_cache(case)) > 0.01


def test_a_complex_factor_per_frequency_pair_folds_through_rope() -> None:
    case = Case(chunks=(6,), turned_pairs=4)
    real, imaginary = case.random(2, case.dim // 2, salt=9)
    upper = torch.cat((torch.diag(real), torch.diag(-imaginary)), dim=1)
    lower = torch.cat((torch.diag(imaginary), torch.diag(real)), dim=1)
    assert largest_error(folded(case, torch.cat((upper, lower))), through_cache(case)) < 1e-12
