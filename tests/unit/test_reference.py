"""`reference.attend` and `attend_kv` against the formulas in float64, through every option."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from onekv.runtime.reference import CacheOverflowError, attend, attend_kv
from tests.unit.cases import (
    F64,
    Case,
    by_formula,
    keys_by_formula,
    largest_error,
    through_cache,
    through_two_caches,
)

cases = st.builds(
    Case,
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple),
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    dim=st.sampled_from([2, 4, 8, 16]),
    window=st.integers(0, 7),
    turned_pairs=st.integers(0, 8),
    gain=st.booleans(),
    spare=st.integers(0, 2),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, F64]),
    cache_dtype=st.sampled_from([torch.float16, torch.float32, F64]),
)
each_option = [
    pytest.param(Case(), id="no rope"),
    pytest.param(Case(turned_pairs=4), id="full rope"),
    pytest.param(Case(turned_pairs=1), id="partial rope"),
    pytest.param(Case(turned_pairs=4, gain=True), id="key gain and rope"),
    pytest.param(Case(gain=True), id="key gain"),
    pytest.param(Case(window=3, spare=9), id="window as a mask"),
    pytest.param(Case(chunks=(4, 1, 3, 1, 5, 2), window=3, spare=0), id="window as a ring"),
    pytest.param(Case(kv_heads=4, group=1), id="one kv head per query head"),
    pytest.param(Case(kv_heads=1, group=4), id="mqa"),
    pytest.param(Case(chunks=(7,)), id="prefill"),
    pytest.param(Case(chunks=(1, 1, 1, 1)), id="decode"),
    pytest.param(Case(batch=3), id="batch"),
    pytest.param(Case(cache_dtype=torch.float16), id="fp16 cache"),
    pytest.param(Case(turned_pairs=4, cache_dtype=torch.float16), id="fp16 cache and rope"),
]


@pytest.mark.parametrize("case", each_option)
def test_attend_matches_the_formula_to_float64_precision(case: Case) -> None:
    expected = by_formula(case, keys_by_formula(case), case.stored(case.rows))
    assert largest_error(through_cache(case), expected) < 1e-13


@pytest.mark.parametrize("case", each_option)
def test_attend_kv_matches_the_formula_to_float64_precision(case: Case) -> None:
    expected = by_formula(case, case.stored(case.rows), case.stored(case.values))
    assert largest_error(through_two_caches(case), expected) < 1e-13


@given(case=cases)
@example(case=Case(chunks=(5, 1, 5, 1), window=1, spare=0))
def test_attend_matches_the_formula_for_any_shape(case: Case) -> None:
    expected = by_formula(case, keys_by_formula(case), case.stored(case.rows))
    # Scores of a few tens lose up to that many units in the last place in the exponential.
    assert largest_error(through_cache(case), expected) < (1e-12 if case.dtype == F64 else 1e-4)


@given(case=cases)
def test_attend_kv_matches_the_formula_for_any_shape(case: Case) -> None:
    expected = by_formula(case, case.stored(case.rows), case.stored(case.values))
    error = largest_error(through_two_caches(case), expected)
    assert error < (1e-12 if case.dtype == F64 else 1e-4)


def test_float16_queries_are_computed_in_float32() -> None:
    case = Case(dtype=torch.float16, cache_dtype=torch.float16, turned_pairs=4)
    out = through_cache(case)
    expected = by_formula(case, keys_by_formula(case), case.stored(case.rows))
    assert out.dtype == torch.float16
    # Half of float16's spacing between 2 and 4: one rounding, at the end.
    assert largest_error(out, expected) < 2**-10 + 1e-5


def test_new_rows_lie_at_their_positions_and_no_other_row_changes() -> None:
    rows = torch.randn(1, 2, 3, 4)
    cache = torch.randn(1, 3, 8, 4)
    before = cache.clone()
    attend(torch.randn(1, 2, 3, 4), rows, cache, torch.tensor([5]))
    assert torch.equal(cache[:, :, 5:7], rows.transpose(1, 2))
    assert torch.equal(cache[:, :, [0, 1, 2, 3, 4, 7]], before[:, :, [0, 1, 2, 3, 4, 7]])


def test_a_ring_keeps_position_t_in_row_t_modulo_its_length() -> None:
    rows = torch.arange(7.0).reshape(1, 7, 1, 1).expand(1, 7, 1, 2)
    cache = torch.zeros(1, 1, 4, 2)
    for t in range(7):
        row = rows[:, t : t + 1]
        attend(row, row, cache, torch.tensor([t]), window=4)
    assert cache[0, 0, :, 0].tolist() == [4, 5, 6, 3]


overflows = [
    pytest.param(7, 2, 0, id="past the end"),
    pytest.param(8, 1, 0, id="at the end"),
    pytest.param(0, 9, 0, id="longer than the cache"),
    pytest.param(-1, 1, 0, id="negative position"),
    pytest.param(-1, 1, 3, id="negative position with a window"),
    pytest.param(7, 2, 8, id="ring would lose a row in view"),
    pytest.param(0, 9, 2, id="longer than the ring"),
]


@pytest.mark.parametrize(("pos", "new", "window"), overflows)
def test_rows_that_do_not_fit_are_refused_without_a_trace(pos: int, new: int, window: int) -> None:
    cache, other = torch.randn(2, 2, 8, 4), torch.randn(2, 2, 8, 4)
    before = cache.clone(), other.clone()
    q, rows = torch.randn(2, new, 4, 4), torch.randn(2, new, 2, 4)
    with pytest.raises(CacheOverflowError):
        attend(q, rows, cache, torch.tensor([pos]), window=window)
    with pytest.raises(CacheOverflowError):
        attend_kv(q, rows, rows, cache, other, torch.tensor([pos]), window=window)
    assert torch.equal(cache, before[0])
    assert torch.equal(other, before[1])


def test_a_negative_window_is_refused_without_a_trace() -> None:
    cache = torch.zeros(1, 1, 8, 4)
    rows = torch.ones(1, 2, 1, 4)
    with pytest.raises(ValueError, match="window -1 is negative"):
        attend(rows, rows, cache, torch.tensor([0]), window=-1)
    assert not cache.any()


def test_the_last_rows_that_fit_are_accepted() -> None:
    cache = torch.zeros(1, 1, 8, 4)
    rows = torch.ones(1, 2, 1, 4)
    attend(rows, rows, cache, torch.tensor([6]))
    assert cache[0, 0, :, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    attend(rows, rows, cache, torch.tensor([7]), window=7)
    assert cache[0, 0, :, 0].tolist() == [1, 0, 0, 0, 0, 0, 1, 1]


wrong_shapes = [
    pytest.param((1, 2, 2, 4), (2, 2, 8, 4), id="batch"),
    pytest.param((2, 2, 1, 4), (2, 2, 8, 4), id="kv heads"),
    pytest.param((2, 1, 2, 4), (2, 2, 8, 4), id="new rows"),
    pytest.param((2, 2, 2, 1), (2, 2, 8, 4), id="head_dim"),
    pytest.param((2, 2, 3, 4), (2, 3, 8, 4), id="heads that do not divide"),
]


@pytest.mark.parametrize(("rows", "cache"), wrong_shapes)
def test_shapes_that_disagree_are_refused_without_a_trace(
    rows: tuple[int, ...], cache: tuple[int, ...]
) -> None:
    q, c = torch.randn(2, 2, 4, 4), torch.randn(rows)
    kept, other = torch.randn(cache), torch.zeros(cache)
    before = kept.clone()
    with pytest.raises(ValueError, match="do not belong together"):
        attend(q, c, kept, torch.tensor([3]))
    with pytest.raises(ValueError, match="do not belong together"):
        attend_kv(q, c, c, kept, other, torch.tensor([3]))
    assert torch.equal(kept, before)


wrong_tables = [
    pytest.param(torch.zeros(4, 2), torch.zeros(4, 2), id="one position short"),
    pytest.param(torch.zeros(9, 1), torch.zeros(9, 1), id="too few angles"),
    pytest.param(torch.zeros(9, 2), torch.zeros(8, 2), id="of two lengths"),
    pytest.param(torch.zeros(9, 2), None, id="no sines"),
]


@pytest.mark.parametrize(("cos", "sin"), wrong_tables)
def test_rotary_tables_that_do_not_fit_are_refused_without_a_trace(
    cos: Tensor, sin: Tensor | None
) -> None:
    q, kept = torch.randn(1, 2, 2, 4), torch.randn(1, 2, 8, 4)
    before = kept.clone()
    with pytest.raises(ValueError, match=r"rotary tables|cos and sin"):
        attend(q, q, kept, torch.tensor([3]), cos, sin)
    assert torch.equal(kept, before)
