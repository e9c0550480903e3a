"""The kernel's benchmark: figures that are kept shape by shape, and runs that go on from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onekv.bench.kernel import __main__ as command
from onekv.bench.kernel.contest import Shape
from onekv.bench.kernel.measure import Result
from onekv.bench.kernel.results import read_results, write_results
from onekv.runtime.rows import RowFormat

SHAPE = Shape(heads=8, kv_heads=8, head_dim=64, context=512, threads=1)
ONE_SHAPE = [
    "--heads",
    "8,8",
    "--head-dims",
    "64",
    "--contexts",
    "512",
    "--threads",
    "1",
    "--prefill-depths",
]


def kept(path: Path) -> Result:
    kinds = (" rope", "", " two tensors")
    us = {f"{form}{kind}": 100.0 + i for form in RowFormat for i, kind in enumerate(kinds)}
    result = Result(SHAPE, 12.5, us)
    write_results(path, [result])
    return result


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *ONE_SHAPE, *map(str, options)])
    command.main()


def test_figures_survive_their_file(tmp_path: Path) -> None:
    result = kept(tmp_path / "figures.json")
    assert read_results(tmp_path / "figures.json") == {SHAPE: result}
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_a_resumed_run_measures_no_shape_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path / "figures.json")
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured again"))
    run(monkeypatch, "--json", tmp_path / "figures.json", "--resume")
    out = capsys.readouterr()
    assert "streaming read 12.5 GB/s" in out.out and "two / one 1.02" in out.out
    assert out.err == ""  # progress is for terminals


def test_a_new_run_forgets_old_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = kept(tmp_path / "figures.json")
    fresh = Result(SHAPE, 20.0, old.us)
    monkeypatch.setattr(command, "measure", lambda *_: fresh)
    run(monkeypatch, "--json", tmp_path / "figures.json")
    assert read_results(tmp_path / "figures.json") == {SHAPE: fresh}


def test_resuming_needs_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--resume")
