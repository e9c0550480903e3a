"""Bytes per token from memory at several depths."""

from __future__ import annotations

import pytest

from onekv.bench.records import Phase, PhaseRecord, Purpose
from onekv.bench.slope import fit_slopes, slope_options
from onekv.bench.suite import SuiteOptions
from onekv.errors import UsageError
from tests.bench.samples import iteration, memory


def _point(depth: int, anonymous: int, **changes: object) -> object:
    decode = PhaseRecord(phase=Phase.DECODE, seconds=1, end=memory(anonymous))
    return iteration(depth=depth, purpose=Purpose.SLOPE, phases=(decode,), **changes)


def test_a_straight_line_gives_its_slope_and_its_distance_from_the_plan() -> None:
    points = [_point(depth, 5_000_000 + 1034 * depth) for depth in (0, 256, 512, 1024)]
    (slope,) = fit_slopes(points)
    assert slope.bytes_per_token == pytest.approx(1034)
    assert slope.planned == 1024
    assert slope.off_plan == pytest.approx(1034 / 1024 - 1)
    assert slope.worst < 1
    bent = [*points, _point(2048, 5_000_000 + 1034 * 2048 + 50_000)]
    assert fit_slopes(bent)[0].worst > 5_000


def test_a_run_with_wrong_tokens_or_of_another_purpose_is_no_point() -> None:
    points = [_point(depth, 5_000_000 + 1000 * depth) for depth in (0, 256)]
    (slope,) = fit_slopes([*points, _point(512, 99, check=None), iteration(depth=1024)])
    assert slope.bytes_per_token == pytest.approx(1000)
    assert fit_slopes(points[:1]) == []


@pytest.mark.parametrize("piece", [18, 36, 68, 128, 256])
@pytest.mark.parametrize("context", [512, 2048, 8192])
def test_depths_fill_whole_pages_and_spread_to_the_end(context: int, piece: int) -> None:
    options = slope_options(context, SuiteOptions(), piece)
    ends = [options.at(depth).tokens for depth in options.depths]
    assert all(-(end * piece) % 4096 < piece for end in ends), "the last page is full"
    page = 4096 / piece
    assert ends[0] < 128 + page and ends[-1] > context - page - 1
    assert 2 <= len(ends) <= 5 and max(ends) <= context
    assert options.chunk == options.prompt_tokens, "no prefill step is longer than the prompt's"
    assert options.purpose is Purpose.SLOPE


def test_a_context_too_short_for_a_line_is_refused() -> None:
    with pytest.raises(UsageError, match="too short"):
        slope_options(255, SuiteOptions(), 256)
    with pytest.raises(UsageError, match="too short"):
        slope_options(300, SuiteOptions(), 18)
