"""Quality and size of integer weights as tables, and what misses its goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

NEAREST, CALIBRATED, ALL_INT8 = "int4", "int4, calibrated", "int8, int8 rows"
FOUR_BIT_PEERS = ("Q4_0", "Q4_K_M")
MOST_INCREASE, MOST_SIZE, MOST_PEAK = 0.005, 0.02, 1.5
"""The goals: perplexity with all in int8, size off its bits, memory beside float32 weights."""


@dataclass(frozen=True)
class Row:
    """One form of a model against its floats; the error of the increase where windows tell it."""

    model: str
    form: str
    bits_per_weight: float
    increase: float
    increase_error: float | None
    kl: float
    top1: float


@dataclass(frozen=True)
class Making:
    """What an export took and made. Bytes; `floats` are the model's weights in float32.

    planned: bits times parameters, in bytes. peak_rss counts the mapped checkpoint.
    """

    model: str
    form: str
    seconds: float
    peak_rss: int
    size: int
    planned: int
    floats: int

    @property
    def off_size(self) -> float:
        """By how much of bits times parameters the size is above it."""
        return self.size / self.planned - 1

    @property
    def of_floats(self) -> float:
        """The peak as a multiple of the float32 weights."""
        return self.peak_rss / self.floats


def quality_table(rows: Sequence[Row]) -> Table:
    """What each form costs."""
    table = _table("Integer weights against floats", ("bits", "perplexity", "KL", "same top-1"))
    for row in rows:
        error = "" if row.increase_error is None else f" ±{100 * row.increase_error:.2f}"
        table.add_row(
            row.model,
            row.form,
            f"{row.bits_per_weight:.2f}",
            f"{row.increase:+.2%}{error}",
            f"{row.kl:.5f}",
            f"{row.top1:.1%}",
        )
    return table


def making_table(rows: Sequence[Making]) -> Table:
    """What each export took and made."""
    headings = ("time", "peak RSS", "of fp32 weights", "size", "off bits x parameters")
    table = _table("Making them", headings)
    for row in rows:
        table.add_row(
            row.model,
            row.form,
            f"{row.seconds:.0f} s",
            f"{row.peak_rss / 2**20:,.0f} MiB",
            f"{row.of_floats:.2f}x",
            f"{row.size / 2**20:,.1f} MiB",
            f"{row.off_size:+.2%}",
        )
    return table


def misses(rows: Sequence[Row], makings: Sequence[Making], judged: str) -> Iterator[str]:
    """What is beyond a goal, in sentences; size and memory are judged for the model `judged`."""
    for row in rows:
        if row.form == ALL_INT8 and row.increase > MOST_INCREASE:
            yield f"{row.model}, {row.form}: perplexity {row.increase:+.2%}"
        if row.form == CALIBRATED:
            for peer in rows:
                same = peer.model == row.model and peer.form in FOUR_BIT_PEERS
                if same and row.increase > peer.increase:
                    yield f"{row.model}, {row.form}: perplexity above {peer.form}'s"
                if same and row.kl > peer.kl:
                    yield f"{row.model}, {row.form}: KL above {peer.form}'s"
    for made in makings:
        name = f"{made.model}, {made.form}"
        if made.model == judged and abs(made.off_size) > MOST_SIZE:
            yield f"{name}: size {made.off_size:+.2%} off bits times parameters"
        if made.model == judged and made.of_floats > MOST_PEAK:
            yield f"{name}: peak RSS {made.of_floats:.2f} times the fp32 weights"


def _table(title: str, figures: Sequence[str]) -> Table:
    table = Table("model", "form", title=title)
    for heading in figures:
        table.add_column(heading, justify="right")
    return table
