"""Every iteration in the order of time, with the device's thermal state, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from onekv.bench.records import BundleInfo, Iteration, Purpose
from onekv.bench.report import charts
from onekv.bench.report.charts import COLOURS, Band, Line
from onekv.bench.report.labels import Labels, device_name
from onekv.bench.report.parts import Entry, Figure, Section, decode_rate, number
from onekv.bench.report.tables import UNKNOWN, Table

# How warm a device says that it is: Android's words, and those of iOS.
_HEAT = {"none": 0, "nominal": 0, "light": 1, "fair": 1, "moderate": 2, "serious": 3, "severe": 3}
_HOTTEST = 3


def iteration_section(records: Sequence[Iteration], labels: Labels) -> Section:
    figures = []
    for device, group in groupby(sorted(records, key=_order), key=lambda r: r.device):
        # Those of a slope have no speed, and would leave a gap.
        of_device = [record for record in group if record.purpose is Purpose.SPEED]
        lines = list(_iteration_lines(of_device, labels))
        bands = tuple(_bands(of_device))
        crosses = [(i, _reason(r)) for i, r in enumerate(of_device, 1) if r.error is not None]
        if not lines and not crosses:
            continue
        caption = f"Decode speed of every iteration on {device_name(device)}"
        axes = ("iteration, in the order of time", "tokens/s")
        chart = charts.line_chart(caption, axes, lines, bands, crosses)
        figures.append(Figure(caption, chart, tuple(_legend(of_device, labels))))
    rows = tuple(_iteration_row(record, labels) for record in sorted(records, key=_order))
    headings = (
        "bundle", "started, UTC", "state", "depth", "decode, tok/s", "TTFT, ms",
        "thermal before", "after", "hottest, °C", "battery, %",
    )  # fmt: skip
    words = (
        "No mean hides a phone that throttles: bands are thermal states as the device names them, "
        "crosses are iterations without a result."
    )
    table = Table("Iterations", headings, rows, 3)
    return Section("Every iteration", words, tuple(figures), (table,))


def failure_section(records: Sequence[Iteration], labels: Labels) -> Section:
    rows = tuple(
        (
            labels.name(r.bundle, r.device),
            f"{r.started:%Y-%m-%d %H:%M:%S}",
            str(r.error.kind),
            r.error.message,
            str(r.options.depth),
        )
        for r in records
        if r.error is not None
    )
    headings = ("bundle", "started, UTC", "kind", "what happened", "depth")
    table = Table("Failures", headings, rows, 4)
    return Section("What went wrong", "", tables=(table,))


def _iteration_lines(records: Sequence[Iteration], labels: Labels) -> Iterator[Line]:
    """One line for each bundle and depth, over places that all of them share."""
    found: dict[tuple[BundleInfo, int], list[tuple[float, float]]] = {}
    for place, record in enumerate(records, 1):
        rate = decode_rate(record)
        if rate is not None and record.error is None:
            found.setdefault((record.bundle, record.options.depth), []).append((place, rate))
    device = records[0].device
    for (bundle, depth), points in found.items():
        name = f"{labels.name(bundle, device)}, depth {depth}"
        colour = labels.colour(bundle, device) % COLOURS
        yield Line(name, tuple(points), colour, not bundle.one_tensor)


def _legend(records: Sequence[Iteration], labels: Labels) -> Iterator[Entry]:
    """One entry a bundle; its depths share a colour."""
    device = records[0].device
    for bundle in dict.fromkeys(record.bundle for record in records):
        colour = labels.colour(bundle, device) % COLOURS
        yield Entry(labels.name(bundle, device), colour, not bundle.one_tensor)


def _bands(records: Sequence[Iteration]) -> Iterator[Band]:
    """Stretches of iterations that began in the same thermal state."""
    states = [(place, record.before.thermal) for place, record in enumerate(records, 1)]
    for state, group in groupby(states, key=lambda entry: entry[1]):
        places = [place for place, _ in group]
        if state is not None:
            level = _HEAT.get(state, _HOTTEST)
            yield Band(places[0] - 0.5, places[-1] + 0.5, state, level)


def _iteration_row(record: Iteration, labels: Labels) -> tuple[str, ...]:
    after = record.after
    state = "warm-up" if record.warm_up else "counts" if record.ok else _reason(record)
    return (
        labels.name(record.bundle, record.device),
        f"{record.started:%Y-%m-%d %H:%M:%S}",
        state,
        str(record.options.depth),
        number(decode_rate(record)),
        number(record.speed.ttft * 1000 if record.speed else None, ".1f"),
        record.before.thermal or UNKNOWN,
        (after.thermal if after else None) or UNKNOWN,
        number(after.temperature if after else None, ".1f"),
        UNKNOWN if after is None or after.battery is None else str(after.battery),
    )


def _reason(record: Iteration) -> str:
    return "does not count" if record.error is None else str(record.error.kind)


def _order(record: Iteration) -> tuple[str, str, float]:
    return record.device.kind, record.device.id, record.started.timestamp()
