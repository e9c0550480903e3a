"""The tables of a report, and their forms as Markdown and CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = "-"
"""What was not told. Never 0."""

# Spreadsheets run cells that begin so.
_FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True)
class Table:
    """`texts` is how many columns from the left are words; the others are figures."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


def markdown(tables: Sequence[Table]) -> str:
    """All tables in GitHub's Markdown."""
    return "\n".join(_markdown(table) for table in tables if table.rows)


def comma_separated(tables: Sequence[Table]) -> str:
    """All tables in one file, each after a line with its title, an empty line between them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for place, table in enumerate(table for table in tables if table.rows):
        if place:
            writer.writerow([])
        writer.writerow([table.title])
        writer.writerow(table.headings)
        for row in table.rows:
            words = [_harmless(cell) for cell in row[: table.texts]]
            writer.writerow([*words, *("" if c == UNKNOWN else c for c in row[table.texts :])])
    return out.getvalue()


def _markdown(table: Table) -> str:
    lines = [f"### {_cell(table.title)}", ""]
    lines.append("| " + " | ".join(map(_cell, table.headings)) + " |")
    sides = ["---"] * table.texts + ["---:"] * (len(table.headings) - table.texts)
    lines.append("|" + "|".join(sides) + "|")
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that is only text: no column, tag, link or emphasis."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\|`*_[]!#~" else c for c in flat)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
