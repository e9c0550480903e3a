"""onekv bench: its tables, its JSON, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onekv.bench.records import Iteration
from onekv.cli import app
from onekv.errors import BundleError, UsageError
from onekv.export.bundle import Bundle

QUICK = ["-p", "12", "-n", "6", "-r", "1", "--warm-ups", "0"]


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tables_show_speed_and_memory_beside_the_plan(bundle: Bundle, tmp_path: Path) -> None:
    shown = call(bundle.path, *QUICK, "-d", "0,20", "-o", tmp_path / "results.jsonl")
    assert "tok/s" in shown and "planned" in shown
    for phase in ("baseline", "loaded", "prefill", "decode", "after"):
        assert shown.count(phase) >= 2


def test_json_is_the_records(bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    shown = call(bundle.path, *QUICK, "--no-sampling", "--json", "-o", output)
    (record,) = [Iteration.model_validate(entry) for entry in json.loads(shown)]
    assert record.ok and record.options.sampling_ms is None
    assert output.read_text().strip() == record.model_dump_json()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-d", "some"], "not numbers apart by commas"),
        (["-d", "-5"], "a depth is 0 or more"),
        (["--on", "fridge"], "no device 'fridge'"),
        (["--on", "host:1"], "no device 'host:1'"),
        (["--slope"], "too short for a slope"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_written(
    bundle: Bundle, tmp_path: Path, arguments: list[str], says: str
) -> None:
    output = tmp_path / "results.jsonl"
    with pytest.raises(UsageError, match=says):
        call(bundle.path, *arguments, "-o", output)
    assert not output.exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        call(tmp_path, "-o", tmp_path / "results.jsonl")
