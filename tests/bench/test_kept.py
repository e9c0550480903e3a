"""What a long benchmark keeps, so that an interruption loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from onekv.bench.kept import Kept


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    Kept(tmp_path / "kept.jsonl").once("export a", lambda: {"seconds": 3})
    kept = Kept(tmp_path / "kept.jsonl")
    assert kept.once("export a", lambda: {"seconds": 4}) == {"seconds": 3}
    assert kept.once("export b", lambda: {"seconds": 5}) == {"seconds": 5}
    assert kept.once("export a", lambda: {"seconds": 6}, again=True) == {"seconds": 6}
    assert kept.get("export a") == {"seconds": 6}


def test_a_failure_keeps_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl")
    with pytest.raises(ZeroDivisionError):
        kept.once("export a", lambda: {"seconds": 1 / 0})
    assert kept.get("export a") is None


def test_a_line_that_was_cut_short_costs_only_itself(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl")
    kept.put("export a", {"seconds": 3})
    with kept.path.open("a") as file:
        file.write('{"key": "export b", "resu')
    kept.put("export c", {"seconds": 5})
    assert [kept.get(f"export {name}") for name in "abc"] == [{"seconds": 3}, None, {"seconds": 5}]
