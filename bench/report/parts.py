"""What sections are made of, and how figures are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onekv.bench.records import Iteration, PhaseRecord
from onekv.bench.report.charts import Line
from onekv.bench.report.tables import UNKNOWN, Table

MIB = 2**20


@dataclass(frozen=True)
class Entry:
    """One line of a legend."""

    name: str
    colour: int
    hollow: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart, its caption and its legend."""

    caption: str
    chart: Markup
    legend: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and what belongs to it."""

    title: str
    words: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def legend(lines: Sequence[Line]) -> Iterator[Entry]:
    """One entry a line."""
    for line in lines:
        yield Entry(line.name, line.colour, line.hollow)


def anonymous(entry: PhaseRecord) -> float | None:
    """For `Series.of_phase`."""
    return entry.anonymous


def over(value: float | None, unit: float) -> float | None:
    """In that unit, if it is known."""
    return None if value is None else value / unit


def mib(value: float | None) -> str:
    """Bytes in MiB."""
    return number(over(value, MIB), ".2f")


def number(value: float | None, form: str = ".1f") -> str:
    """A figure, or that it is unknown."""
    return UNKNOWN if value is None else f"{value:{form}}"


def decode_rate(record: Iteration) -> float | None:
    """Tokens a second, where the times are known."""
    return None if record.speed is None else record.speed.decode_tokens_per_second
