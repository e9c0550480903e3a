"""Figures that cannot be: better no result than a wrong one."""

from __future__ import annotations

from onekv.bench.records import Iteration, Phase


def implausible(record: Iteration) -> str | None:
    """Why a record's memory cannot be true, if it cannot."""
    if missing := [phase for phase in Phase if record.phase(phase) is None]:
        return f"phase {missing[0]} is missing"
    interval = record.options.sampling_ms
    seconds = sum(entry.seconds for entry in record.phases)
    # Two intervals: a first sample may come just after a short run.
    if interval and seconds * 1000 > 2 * interval and not sum(p.samples for p in record.phases):
        return f"no sample was taken in {seconds:.1f} s"
    loaded, planned = record.phase(Phase.LOADED), record.planned
    if planned is None or loaded is None or loaded.anonymous is None:
        return None
    held = planned.weights - planned.weights_mapped
    if loaded.anonymous < held:
        return f"{loaded.anonymous} bytes after loading are fewer than the weights' {held}"
    return None
