"""The page: one file that works offline. Everything in a record is escaped, and no script runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onekv.bench.record_file import read_records
from onekv.bench.records import Iteration
from onekv.bench.report.build import Report, build_report
from onekv.bench.report.tables import comma_separated, markdown
from onekv.errors import OnekvError, UsageError

_TEMPLATE = "report.html.j2"
_FORMATS = (".html", ".md", ".csv")


def write_report(results: Sequence[Path], output: Path) -> Report:
    """Read result files and write a page, or its tables alone as `.md` or `.csv`.

    Raises:
        UsageError: the output's ending is none of these.
        OnekvError: a file is none of results, holds no record, or cannot be written.
    """
    ending = output.suffix.lower()
    if ending not in _FORMATS:
        raise UsageError(f"{output.name} is no {', '.join(_FORMATS)}", "Choose another -o.")
    records = [record for path in results for record in read_records(path)]
    report = build_report(records)
    if ending == ".html":
        text = render(report, records, [path.name for path in results])
    else:
        text = (markdown if ending == ".md" else comma_separated)(report.tables)
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OnekvError(f"{output} cannot be written: {error.strerror}") from error
    return report


def render(report: Report, records: Sequence[Iteration], names: Sequence[str]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    as_markdown, as_csv = markdown(report.tables), comma_separated(report.tables)
    versions = dict.fromkeys(record.runner.version for record in records if record.runner)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        count=len(records),
        sources=", ".join(names),
        versions=", ".join(versions),
        markdown=as_markdown,
        csv=as_csv,
        markdown_link=_data("text/markdown", as_markdown),
        csv_link=_data("text/csv", as_csv),
    )


def _data(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
