"""Exports and speeds as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from onekv.bench.executorch_decode import Speed
from onekv.bench.executorch_exports import Exported

_TEXT = ("model", "tool")


def export_table(rows: Sequence[Exported]) -> Table:
    """What each export took and made."""
    table = _table(
        "Export to ExecuTorch, 8da4w",
        ("wall time", "CPU time", "peak RSS", "program", "arenas"),
    )
    for row in rows:
        mb = (f"{size / 1e6:,.1f} MB" for size in (row.peak_rss, row.file_bytes, row.arena_bytes))
        seconds = (f"{value:.0f} s" for value in (row.seconds, row.cpu_seconds))
        table.add_row(row.model, row.tool, *seconds, *mb)
    return table


def speed_table(rows: Sequence[Speed]) -> Table:
    """Speeds, and each as a multiple of the first tool's at the same depth."""
    table = _table("Decode", ("depth", "tokens/s", "ratio"))
    first: dict[int, float] = {}
    for row in rows:
        base = first.setdefault(row.depth, row.tokens_per_second)
        speed, ratio = row.tokens_per_second, row.tokens_per_second / base
        table.add_row(row.model, row.tool, f"{row.depth:,}", f"{speed:.1f}", f"{ratio:.2f}")
    return table


def _table(title: str, figures: Sequence[str]) -> Table:
    table = Table(title=title)
    for heading in _TEXT:
        table.add_column(heading)
    for heading in figures:
        table.add_column(heading, justify="right")
    return table
