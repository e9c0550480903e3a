"""Which figures of integer weights count as a goal missed."""

from __future__ import annotations

from dataclasses import replace

from onekv.bench.weight_tables import ALL_INT8, CALIBRATED, Making, Row, misses

_OURS = Row("a", CALIBRATED, 5.17, 0.001, 0.001, 0.004, 0.94)
_PEER = Row("a", "Q4_0", 4.9, 0.002, None, 0.007, 0.93)
_MADE = Making("large", "int4", 60, peak_rss=600, size=101, planned=100, floats=400)


def test_nothing_is_missed_within_the_goals() -> None:
    whole = Row("a", ALL_INT8, 8.5, 0.005, 0.001, 0.001, 0.98)
    assert not list(misses([_OURS, _PEER, whole], [_MADE], "large"))


def test_a_peer_counts_for_its_own_model_alone() -> None:
    better = replace(_PEER, increase=0, kl=0.001)
    assert len(list(misses([_OURS, better], [], "large"))) == 2
    assert not list(misses([_OURS, replace(better, model="b")], [], "large"))


def test_all_in_int8_may_cost_half_a_percent() -> None:
    row = Row("a", ALL_INT8, 8.5, 0.0051, 0.001, 0.001, 0.98)
    assert list(misses([row], [], "large")) == ["a, int8, int8 rows: perplexity +0.51%"]


def test_size_and_memory_are_judged_for_the_large_model() -> None:
    made = replace(_MADE, size=103, peak_rss=601)
    assert len(list(misses([], [made], "large"))) == 2
    assert not list(misses([], [replace(made, model="small")], "large"))
