"""The report: what it shows, that nothing of a record can act in it, and how a browser draws it."""

from __future__ import annotations

import base64
import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onekv.bench.record_file import append
from onekv.bench.records import Iteration, MemorySplit, Phase, Purpose
from onekv.bench.report.build import build_report
from onekv.bench.report.charts import Band, Bar, Line, bar_chart, line_chart, spread_chart
from onekv.bench.report.page import write_report
from onekv.bench.report.tables import Table, comma_separated, markdown
from onekv.errors import OnekvError, UsageError
from tests.bench.report_records import HOSTILE, LIAR, PHONE, records
from tests.bench.samples import MIB, iteration
from tests.unit.test_cli import onekv


class Page(HTMLParser):
    """A page taken apart: its elements, and its text as it is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


def write(path: Path, found: list[Iteration]) -> Path:
    with path.open("w") as file:
        for record in found:
            append(file, record)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Page:
    results = write(tmp_path / "results.jsonl", records())
    write_report([results], tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text())


def test_a_page_shows_every_part(page: Page) -> None:
    headings = [
        "What was measured",
        "Memory by phase",
        "Planned against measured",
        "Memory and speed against context",
        "The cache by its slope",
        "Every iteration",
        "What went wrong",
    ]
    assert not set(headings) - set(page.words)
    # Two bundles by phase, the plan, memory, speed and TTFT, the slope, the iterations.
    assert page.count("svg") == 8
    for word in ("Pixel 9", "severe", "moderate", "out-of-memory", "79.38", "+1.51"):
        assert any(word in found for found in page.words), word


def test_a_page_needs_nothing_from_outside(page: Page, tmp_path: Path) -> None:
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    text = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    assert set(re.findall(r"https?://[^\s\"]+", text)) == {"http://www.w3.org/2000/svg"}


def test_nothing_in_a_record_acts(tmp_path: Path) -> None:
    results = write(tmp_path / "results.jsonl", records(LIAR, (HOSTILE, HOSTILE)))
    for ending in ("html", "md", "csv"):
        write_report([results], tmp_path / f"report.{ending}")
    found = Page((tmp_path / "report.html").read_text())
    assert found.count("script") == 0
    assert any(HOSTILE in word for word in found.words)
    assert "<script" not in (tmp_path / "report.md").read_text()
    rows = list(csv.reader((tmp_path / "report.csv").open()))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "@", "+c"))]


def test_the_tables_inside_are_those_beside(tmp_path: Path) -> None:
    results = write(tmp_path / "results.jsonl", records())
    for ending in ("html", "md", "csv"):
        write_report([results], tmp_path / f"report.{ending}")
    links = [
        str(attributes["href"])
        for tag, attributes in Page((tmp_path / "report.html").read_text()).elements
        if tag == "a"
    ]
    inside = [base64.b64decode(link.split(",")[1]).decode() for link in links]
    assert inside == [(tmp_path / "report.md").read_text(), (tmp_path / "report.csv").read_text()]


def test_figures_are_medians_of_what_counts() -> None:
    report = build_report(records())
    (table,) = [t for t in report.tables if t.title == "Speed and memory against context"]
    rates = {(row[0], row[1]): row[5] for row in table.rows}
    # Repetitions 1 to 7 count, the first being a warm-up: the median is that of repetition 4.
    assert rates["tiny", "0"] == f"{50 * (1 - 0.06 * 4):.1f}"
    # One of the twin's seven failed: six are left.
    (measured,) = [t for t in report.tables if t.title == "Bundles"]
    assert [row[-1] for row in measured.rows] == ["28 of 28", "27 of 28"]


def test_what_was_not_told_is_never_zero() -> None:
    report = build_report(records())
    (table,) = [t for t in report.tables if t.title == "Memory by phase, MiB"]
    assert {row[table.headings.index("GPU, MiB")] for row in table.rows} == {"-"}
    assert "0.00" not in {row[table.headings.index("planned")] for row in table.rows}


def test_what_the_fullest_sample_does_not_tell_is_that_of_the_phases_end() -> None:
    """Samples count anonymous pages alone; a GPU is asked when a phase has ended."""
    measured = iteration()
    phases = tuple(
        entry.model_copy(
            update={
                "peak": MemorySplit(pss_anon=20 * MIB, swap=0),
                "end": entry.end.model_copy(update={"gpu": 7 * MIB}),
            }
        )
        for entry in measured.phases
    )
    report = build_report([measured.model_copy(update={"phases": phases})])
    (table,) = [t for t in report.tables if t.title == "Memory by phase, MiB"]
    shown = ("anonymous, MiB", "GPU, MiB", "mapped from files, MiB")
    rows = [[row[table.headings.index(name)] for name in shown] for row in table.rows]
    assert rows == [["20.00", "7.00", "5.00"]] * len(Phase)
    (section,) = [s for s in report.sections if s.title == "Memory by phase"]
    names = [entry.name for entry in section.figures[0].legend]
    assert names == ["anonymous", "GPU", "mapped from files"]


def test_runs_of_a_slope_are_no_gap_among_the_iterations() -> None:
    of_slope = iteration(1).model_copy(update={"purpose": Purpose.SLOPE})
    report = build_report([iteration(), of_slope, iteration(2)])
    (section,) = [s for s in report.sections if s.title == "Every iteration"]
    assert "at 2<" in section.figures[0].chart and "at 3<" not in section.figures[0].chart


def test_one_failure_alone_makes_a_report() -> None:
    failed = [record for record in records() if record.error is not None]
    report = build_report(failed)
    assert [section.title for section in report.sections] == [
        "What was measured",
        "Every iteration",
        "What went wrong",
    ]


def test_bundles_of_one_name_and_several_devices_are_told_apart() -> None:
    other = PHONE.model_copy(update={"id": "host-2", "model": None})
    report = build_report([*records(names=("same", "same")), *records(other)])
    names = {row[0] for row in report.tables[0].rows}
    assert names == {
        "same aaaaaaaa on Pixel 9 (3A141FDJG000XY)",
        "same bbbbbbbb on Pixel 9 (3A141FDJG000XY)",
        "tiny on android (host-2)",
        "tiny-qkv on android (host-2)",
    }


def test_markdown_cells_are_only_text() -> None:
    table = Table("a|b", ("x", "y"), (("[link](http://x)|<b>", "-1"),))
    assert "\\[link\\](http://x)\\|&lt;b&gt;" in markdown([table])
    assert "| -1 |" in markdown([table])


def test_spreadsheets_run_no_cell() -> None:
    table = Table("t", ("x", "y"), (("=1+1", "-1.5"), ("@x", "-")))
    rows = list(csv.reader(comma_separated([table]).splitlines()))
    assert rows[2:] == [["'=1+1", "-1.5"], ["'@x", ""]]


def test_charts_place_values_where_the_axis_says() -> None:
    chart = bar_chart("t", "MiB", [Bar("a", (("x", 50.0, 0),), 100.0)], 100.0)
    (height,) = [float(h) for h in re.findall(r'height="([\d.]+)" class="c0"', chart)]
    assert height == pytest.approx((300 - 34 - 50) / 2)
    (mark,) = re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="[\d.]+" class="mark"', chart)
    assert float(mark) == 34


def test_charts_of_odd_values_are_drawn_too() -> None:
    for points in ((), ((0.0, 0.0),), ((5.0, 1e-9), (5.0, 1e12))):
        lines = [Line("<x>", points, 0)] if points else []
        chart = line_chart("t", ("x", "y"), lines, [Band(0, 1, "none", 0)], [(1, "<why>")])
        assert "nan" not in chart and "<x>" not in chart and "<why>" not in chart
    assert "+250%" in spread_chart("t", [("a", 240.0)], 3.0)


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(OnekvError, match="hold no record"):
        write_report([tmp_path / "empty.jsonl"], tmp_path / "report.html")
    (tmp_path / "other.jsonl").write_text("hello\n")
    with pytest.raises(OnekvError, match=r"other\.jsonl:1 is not a JSON object"):
        write_report([tmp_path / "other.jsonl"], tmp_path / "report.html")
    with pytest.raises(UsageError, match=r"is no \.html"):
        write_report([tmp_path / "empty.jsonl"], tmp_path / "report.txt")
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    results = write(tmp_path / "results.jsonl", records())
    shown = onekv("report", results, "-o", tmp_path / "out.html").stdout
    assert "Memory by phase" in shown and (tmp_path / "out.html").stat().st_size > 20_000
    assert "bench" in onekv("report", tmp_path / "none.jsonl", code=1).stderr


WIDTHS = {"desktop": (1200, 900), "phone": (390, 1200)}


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_draws_it(tmp_path: Path, width: str, dark: bool) -> None:
    """The page's own colours are on the screen, and nothing is wider than the screen."""
    browser = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if browser is None:
        pytest.skip("Chromium is not installed: apt-get install chromium-headless-shell")
    results = write(tmp_path / "results.jsonl", records())
    write_report([results], tmp_path / "report.html")
    across, down = WIDTHS[width]
    command = [
        browser, "--no-sandbox", "--headless", "--disable-gpu", "--hide-scrollbars",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={across},{down}",
    ]  # fmt: skip
    shot = tmp_path / "shot.png"
    page = (tmp_path / "report.html").as_uri()
    subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True)
    from PIL import Image

    picture = Image.open(shot).convert("RGB")
    assert picture.size == (across, down)
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    background, ink = ((13, 17, 23), (230, 237, 243)) if dark else ((255, 255, 255), (27, 31, 36))
    assert picture.getpixel((2, 2)) == background and ink in colours
    bar = (78, 168, 222) if dark else (0, 114, 178)
    assert bar in colours
    # Only the boxes of tables scroll sideways; the rightmost column of pixels stays empty.
    assert {picture.getpixel((across - 2, y)) for y in range(down)} == {background}
