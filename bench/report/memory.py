"""Memory by phase, and what the plan said of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onekv.bench.records import BundleInfo, DeviceInfo, MemorySplit, Phase, PhaseRecord
from onekv.bench.report import charts
from onekv.bench.report.charts import Bar
from onekv.bench.report.labels import Labels
from onekv.bench.report.parts import MIB, Entry, Figure, Section, mib
from onekv.bench.report.tables import Table
from onekv.bench.series import Series

GOAL = 3.0
"""How far, in percent, measured memory may lie from the plan."""

PARTS = ("anonymous", "swapped", "GPU", "mapped from files")


def phase_section(series: Sequence[Series], labels: Labels) -> Section:
    stacks = {s: _bars(s) for s in _deepest(series)}
    # One scale for all, so that they can be compared.
    top = max((bar.top for bars in stacks.values() for bar in bars), default=1.0)
    figures = tuple(
        Figure(
            f"{labels.name(s.bundle, s.device)}, {s.tokens} tokens in the cache",
            charts.bar_chart(f"Memory by phase of {s.bundle.name}", "MiB", bars, top),
            tuple(_legend(bars)),
        )
        for s, bars in stacks.items()
    )
    rows = tuple(
        (
            labels.name(s.bundle, s.device),
            str(phase),
            str(s.depth),
            *(mib(value) for value in _split(s, phase)),
            mib(s.planned(phase)),
            mib(s.of_phase(phase, lambda entry: entry.high_water)),
        )
        for s in series
        for phase in Phase
    )
    headings = ("bundle", "phase", "depth", *(f"{p}, MiB" for p in PARTS), "planned", "high water")
    words = (
        "The sample of each phase with the most anonymous memory; mapped and GPU memory are those "
        "of the phase's end where that sample does not tell them. The line across a bar is what "
        "the plan says of anonymous memory; pages of files come and go with the system's cache."
    )
    table = Table("Memory by phase, MiB", headings, rows, 2)
    return Section("Memory by phase", words, figures, (table,))


def plan_section(series: Sequence[Series], labels: Labels) -> Section:
    rows, dots = [], []
    for s in series:
        for phase in (Phase.LOADED, Phase.PREFILL, Phase.DECODE):
            measured = s.of_phase(phase, lambda entry: entry.anonymous)
            planned = s.planned(phase)
            if measured is None or not planned:
                continue
            off = 100 * (measured / planned - 1)
            name = labels.name(s.bundle, s.device)
            rows.append(
                (name, str(phase), str(s.depth), mib(planned), mib(measured), f"{off:+.2f}")
            )
            dots.append((f"{name}, {phase}, depth {s.depth}", off))
    headings = ("bundle", "phase", "depth", "planned, MiB", "measured, MiB", "off, %")
    table = Table("Planned against measured", headings, tuple(rows), 2)
    chart = charts.spread_chart("Measured against planned memory, percent", dots, GOAL)
    figures = (Figure(f"within {GOAL:g}% lies between the lines", chart),) if dots else ()
    words = "Anonymous memory, swapped pages included, measured against what onekv plan says."
    return Section("Planned against measured", words, figures, (table,))


def _legend(bars: Sequence[Bar]) -> Iterator[Entry]:
    """The parts that have any size in any bar."""
    shown = {name for bar in bars for name, value, _ in bar.parts if value > 0}
    return (Entry(name, colour) for colour, name in enumerate(PARTS) if name in shown)


def _bars(series: Series) -> list[Bar]:
    bars = []
    for phase in Phase:
        values = _split(series, phase)
        parts = tuple(
            (name, value / MIB, colour)
            for colour, (name, value) in enumerate(zip(PARTS, values))
            if value is not None
        )
        planned = series.planned(phase)
        bars.append(Bar(str(phase), parts, None if planned is None else planned / MIB))
    return bars


def _split(series: Series, phase: Phase) -> tuple[float | None, ...]:
    """Medians of `PARTS`; phys_footprint is a device's own sum of what counts as anonymous."""

    def of(figure: str) -> float | None:
        return series.of_phase(phase, lambda entry: _figure(entry, figure))

    anonymous = of("pss_anon")
    return (
        of("phys_footprint") if anonymous is None else anonymous,
        of("swap"),
        of("gpu"),
        of("pss_file"),
    )


def _figure(entry: PhaseRecord, name: str) -> int | None:
    """Of the fullest moment; samples need not tell what the end of a phase does."""
    value: int | None = getattr(_fullest(entry), name)
    return getattr(entry.end, name) if value is None else value


def _fullest(entry: PhaseRecord) -> MemorySplit:
    seen = [m for m in (entry.peak, entry.end) if m is not None]
    return max(seen, key=lambda m: m.anonymous or 0)


def _deepest(series: Sequence[Series]) -> list[Series]:
    """Of each bundle on each device the series with the most tokens."""
    found: dict[tuple[BundleInfo, DeviceInfo], Series] = {}
    for s in series:
        best = found.get((s.bundle, s.device))
        if best is None or s.tokens > best.tokens:
            found[s.bundle, s.device] = s
    return list(found.values())
