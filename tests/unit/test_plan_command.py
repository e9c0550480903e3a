"""`onekv plan` as a person types it."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.test_cli import onekv


def test_a_name_of_the_paper_is_enough() -> None:
    shown = onekv("plan", "paper:1.2b/q-gqa-8", "--weights", "fp16", "--to", "onnx").stdout
    assert "Q-GQA-8" in shown and "GQA-8" in shown and "22 KiB" in shown and "50.0%" in shown


def test_a_budget_and_a_phone_give_the_longest_context_and_the_source() -> None:
    asked = ("plan", "paper:1.2b/q-k=v", "--to", "coreml", "--fits", "2GiB")
    shown = onekv(*asked, "--device", "iphone-13-pro").stdout
    assert "increased-memory-limit" in shown
    assert "limits from github.com/a-ghorbani/pocketpal-ai/pull/651" in shown
    (target,) = json.loads(onekv(*asked, "--json").stdout)["targets"]
    assert target["fits"][0]["budget"]["bytes"] == 2**31
    assert target["fits"][0]["model"]["needed"] > 0


def test_json_gives_bytes_for_every_target_asked_for() -> None:
    shown = onekv("plan", "paper:300m/q-mqa", "--to", "onnx", "--to", "coreml", "--json").stdout
    found = json.loads(shown)
    assert [t["target"] for t in found["targets"]] == ["onnx", "coreml"]
    assert found["targets"][1]["plan"]["cache_per_token"] == 2560
    assert found["targets"][1]["twin"]["cache_per_token"] == 2 * 2560


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_plot_has_a_line_for_each_variant(tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"plan.{ending}"
    onekv("plan", "paper:300m/q-gqa-4", "--to", "onnx", "--fits", "2GiB", "--plot", picture)
    if ending == "png":
        assert picture.read_bytes().startswith(b"\x89PNG")
        return
    text = "".join(ElementTree.parse(picture).getroot().itertext())
    assert "onnx Q-GQA-4" in text and "onnx GQA-4" in text and "--fits" in text


def test_wrong_calls_end_with_two_and_a_fix(tmp_path: Path) -> None:
    unknown = onekv("plan", "paper:300m/q-gqa-3", code=2)
    assert "q-gqa-4" in unknown.stderr
    assert "2GiB" in onekv("plan", "paper:300m/qkv", "--fits", "lots", code=2).stderr
    assert "iphone" in onekv("plan", "paper:300m/qkv", "--device", "n95", code=2).stderr
    plot = onekv("plan", "paper:300m/qkv", "--plot", tmp_path / "plan.txt", code=2)
    assert ".svg" in plot.stderr and not list(tmp_path.iterdir())


def test_a_missing_model_ends_with_one() -> None:
    assert "does not exist" in onekv("plan", "nowhere", code=1).stderr


def test_a_plan_answers_at_once() -> None:
    """Half a second is the goal; the processor time of a busy machine is what is checked."""
    begin = _children()
    onekv("plan", "paper:1.2b/q-gqa-8", "--device", "iphone-13-pro")
    assert _children() - begin < 1.0


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
