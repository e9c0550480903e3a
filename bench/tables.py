"""Results of a suite as tables for a terminal: medians over repetitions, beside the plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from onekv.bench.records import Iteration, Phase
from onekv.bench.series import collect, middle
from onekv.bench.slope import Slope

_MIB = 2**20
_UNKNOWN = "-"


def series_line(record: Iteration) -> str:
    """One iteration in a line."""
    kind = "warm-up" if record.warm_up else f"#{record.iteration}"
    head = f"{record.bundle.name} depth {record.options.depth} {kind}: "
    if record.error is not None:
        return head + f"{record.error.kind}: {record.error.message}"
    peak = max((p.high_water or 0 for p in record.phases), default=0)
    speed = record.speed
    if speed is None:
        return head + "no times"
    rate = speed.decode_tokens_per_second
    decode = "" if rate is None else f", decode {rate:.1f} tokens/s"
    return head + f"TTFT {speed.ttft * 1000:.0f} ms{decode}, peak {peak / _MIB:.1f} MiB"


def speed_table(records: Sequence[Iteration]) -> Table:
    """Times of each bundle at each depth."""
    table = Table(title="speed, medians")
    for heading in ("bundle", "depth", "TTFT ms", "prefill tok/s", "decode tok/s", "read GB/s"):
        table.add_column(heading, justify="left" if heading == "bundle" else "right")
    for series in collect(records):
        speeds = [r.speed for r in series.records if r.speed is not None]
        table.add_row(
            series.bundle.name,
            str(series.depth),
            _median((s.ttft * 1000 for s in speeds), ".1f"),
            _median((s.prefill_tokens_per_second for s in speeds), ".1f"),
            _median((s.decode_tokens_per_second for s in speeds), ".1f"),
            _median((r.stream_read_gb_s for r in series.records), ".1f"),
        )
    return table


def phase_table(records: Sequence[Iteration]) -> Table:
    """Memory of each phase, measured beside planned."""
    table = Table(title="memory in MiB, medians")
    headings = ("bundle", "depth", "phase", "anonymous", "planned", "off", "file", "high water")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("bundle", "phase") else "right")
    for series in collect(records):
        for phase in Phase:
            measured = series.of_phase(phase, lambda entry: entry.anonymous)
            planned = series.planned(phase)
            off = None if measured is None or not planned else measured / planned - 1
            table.add_row(
                series.bundle.name,
                str(series.depth),
                phase,
                _mib(measured),
                _mib(planned),
                _UNKNOWN if off is None else f"{off:+.1%}",
                _mib(series.of_phase(phase, lambda entry: entry.end.pss_file)),
                _mib(series.of_phase(phase, lambda entry: entry.high_water)),
            )
    return table


def slope_table(slopes: Sequence[Slope]) -> Table:
    """Bytes per token of each bundle, measured beside planned."""
    table = Table(title="cache, bytes per token")
    for heading in ("bundle", "variant", "cache", "measured", "planned", "off", "worst point KiB"):
        table.add_column(heading, justify="left" if heading in ("bundle", "variant") else "right")
    for slope in slopes:
        table.add_row(
            slope.bundle.name,
            slope.bundle.variant,
            slope.bundle.cache,
            f"{slope.bytes_per_token:.1f}",
            _UNKNOWN if slope.planned is None else str(slope.planned),
            _UNKNOWN if slope.off_plan is None else f"{slope.off_plan:+.2%}",
            f"{slope.worst / 1024:.0f}",
        )
    return table


def _median(values: Iterable[float | None], form: str) -> str:
    found = middle(values)
    return _UNKNOWN if found is None else f"{found:{form}}"


def _mib(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value / _MIB:.2f}"
