"""From records to everything that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onekv.bench.records import BundleInfo, DeviceInfo, Iteration
from onekv.bench.report.context import context_section, slope_section
from onekv.bench.report.iterations import failure_section, iteration_section
from onekv.bench.report.labels import Labels, device_name
from onekv.bench.report.memory import phase_section, plan_section
from onekv.bench.report.parts import Section
from onekv.bench.report.tables import Table
from onekv.bench.series import collect
from onekv.bench.slope import fit_slopes
from onekv.errors import OnekvError


@dataclass(frozen=True)
class Report:
    """Everything that a page shows."""

    devices: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in order."""
        return tuple(table for section in self.sections for table in section.tables)


def build_report(records: Sequence[Iteration]) -> Report:
    """Put a report together.

    Raises:
        OnekvError: there is no record.
    """
    if not records:
        raise OnekvError("the results hold no record", "Measure first: onekv bench BUNDLE.")
    labels = Labels((record.bundle, record.device) for record in records)
    series = collect(records)
    slopes = fit_slopes(records)
    sections = (
        _measured(records, labels),
        phase_section(series, labels),
        plan_section(series, labels),
        context_section(series, labels),
        slope_section(slopes, records, labels),
        iteration_section(records, labels),
        failure_section(records, labels),
    )
    devices = dict.fromkeys(record.device for record in records)
    kept = tuple(s for s in sections if s.figures or any(t.rows for t in s.tables))
    return Report(tuple(map(_device_line, devices)), kept)


def _measured(records: Sequence[Iteration], labels: Labels) -> Section:
    found: dict[tuple[BundleInfo, DeviceInfo], list[Iteration]] = {}
    for record in records:
        found.setdefault((record.bundle, record.device), []).append(record)
    rows = tuple(
        (
            labels.name(*pair),
            pair[0].variant,
            pair[0].target,
            pair[0].weights,
            pair[0].cache,
            "1" if pair[0].one_tensor else "2",
            str(pair[0].context),
            f"{pair[0].parameters / 1e6:.4g}",
            f"{sum(r.ok for r in of_pair)} of {len(of_pair)}",
        )
        for pair, of_pair in found.items()
    )
    headings = (
        "bundle", "attention", "runtime", "weights", "cache",
        "tensors per layer", "context", "parameters, M", "iterations that count",
    )  # fmt: skip
    words = (
        "An iteration counts when it ended, and gave the tokens of the bundle's parity record. "
        "Figures below are medians over those that count, warm-ups left out."
    )
    return Section("What was measured", words, tables=(Table("Bundles", headings, rows, 5),))


def _device_line(device: DeviceInfo) -> str:
    memory = None if device.memory is None else f"{device.memory / 2**30:.1f} GiB"
    cores = None if device.cores is None else f"{device.cores} cores"
    told = (device.manufacturer, device.system, device.cpu, cores, memory, device.build)
    return f"{device_name(device)}: " + ", ".join(part for part in told if part)
