"""Memory and speed against context, and the cache by its slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onekv.bench.records import BundleInfo, DeviceInfo, Iteration, Phase
from onekv.bench.report import charts
from onekv.bench.report.charts import COLOURS, Line
from onekv.bench.report.labels import Labels
from onekv.bench.report.parts import (
    MIB,
    Figure,
    Section,
    anonymous,
    decode_rate,
    legend,
    mib,
    number,
    over,
)
from onekv.bench.report.tables import UNKNOWN, Table
from onekv.bench.series import Series
from onekv.bench.slope import Slope

Groups = dict[tuple[BundleInfo, DeviceInfo], list[Series]]


def context_section(series: Sequence[Series], labels: Labels) -> Section:
    groups: Groups = {}
    for s in series:
        groups.setdefault((s.bundle, s.device), []).append(s)
    axes = "tokens in the cache"
    memory = _lines(groups, labels, lambda s: over(s.of_phase(Phase.DECODE, anonymous), MIB))
    speed = _lines(groups, labels, lambda s: s.middle(decode_rate))
    wait = _lines(groups, labels, lambda s: s.middle(_wait))
    figures = [
        Figure(caption, charts.line_chart(caption, (axes, unit), lines), tuple(legend(lines)))
        for caption, unit, lines in (
            ("Anonymous memory while decoding", "MiB", memory),
            ("Decode speed", "tokens/s", speed),
            ("Time to the first token", "ms", wait),
        )
        if lines
    ]
    rows = tuple(
        (
            labels.name(s.bundle, s.device),
            str(s.depth),
            str(s.tokens),
            number(s.middle(_wait), ".1f"),
            number(s.middle(lambda r: r.speed.prefill_tokens_per_second if r.speed else None)),
            number(s.middle(decode_rate)),
            mib(s.of_phase(Phase.DECODE, anonymous)),
            number(s.middle(lambda r: r.stream_read_gb_s), ".2f"),
        )
        for s in series
    )
    headings = (
        "bundle", "depth", "tokens", "TTFT, ms", "prefill, tok/s", "decode, tok/s",
        "anonymous, MiB", "streaming reads, GB/s",
    )  # fmt: skip
    words = (
        "Solid lines are models that cache one tensor per layer, dashed ones cache two. Depth is "
        "what the cache held before the prompt; streaming reads are what the device's memory "
        "gave just before."
    )
    table = Table("Speed and memory against context", headings, rows)
    return Section("Memory and speed against context", words, tuple(figures), (table,))


def slope_section(slopes: Sequence[Slope], records: Sequence[Iteration], labels: Labels) -> Section:
    devices = {record.bundle: record.device for record in records}
    rows = tuple(
        (
            labels.name(slope.bundle, devices[slope.bundle]),
            slope.bundle.variant,
            slope.bundle.cache,
            f"{slope.bytes_per_token:.1f}",
            UNKNOWN if slope.planned is None else str(slope.planned),
            UNKNOWN if slope.off_plan is None else f"{100 * slope.off_plan:+.2f}",
        )
        for slope in slopes
    )
    lines = [
        Line(
            labels.name(slope.bundle, devices[slope.bundle]),
            tuple((x, y / MIB) for x, y in slope.points),
            labels.colour(slope.bundle, devices[slope.bundle]) % COLOURS,
            not slope.bundle.one_tensor,
        )
        for slope in slopes
    ]
    chart = charts.line_chart(
        "Anonymous memory against tokens, fresh processes", ("tokens in the cache", "MiB"), lines
    )
    caption = "A fresh process for every point"
    figures = (Figure(caption, chart, tuple(legend(lines))),) if lines else ()
    headings = ("bundle", "attention", "cache", "bytes per token", "planned", "off, %")
    words = "The cache alone: what each token adds to a process, by least squares."
    table = Table("Cache, bytes per token", headings, rows, 3)
    return Section("The cache by its slope", words, figures, (table,))


def _wait(record: Iteration) -> float | None:
    """Milliseconds to the first token."""
    return record.speed.ttft * 1000 if record.speed else None


def _lines(groups: Groups, labels: Labels, figure: Callable[[Series], float | None]) -> list[Line]:
    """One line for each bundle on each device, over the tokens in the cache."""
    lines = []
    for (bundle, device), of_pair in groups.items():
        ordered = sorted(of_pair, key=lambda s: s.tokens)
        points = tuple((s.tokens, y) for s in ordered if (y := figure(s)) is not None)
        if points:
            colour = labels.colour(bundle, device) % COLOURS
            lines.append(Line(labels.name(bundle, device), points, colour, not bundle.one_tensor))
    return lines
