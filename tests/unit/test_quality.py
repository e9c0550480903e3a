"""What a number format costs: sessions beside the source, bundles of one model, table and plot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onekv.errors import UsageError
from onekv.export.model.session import DecoderSession
from onekv.export.quality import measure_quality, parse_formats
from onekv.export.quality_plot import plot_quality
from onekv.quantize.compare import compare
from onekv.quantize.quality import perplexity
from onekv.runtime.rows import RowFormat
from tests.specs import LLAMA, tiny_decoder, token_ids

SPEC = LLAMA["llama Q-GQA-2"]
TOKENS = token_ids(SPEC, 192)[0].tolist()


def session(form: RowFormat = RowFormat.FP32) -> DecoderSession:
    return DecoderSession(tiny_decoder(SPEC), 64, form)


def test_a_session_beside_itself_costs_nothing() -> None:
    (found,) = compare([session()], session(), TOKENS, 64)
    assert (found.kl, found.top1, found.increase) == (0.0, 1.0, 0.0)
    assert found.tokens == 3 * 63
    assert found.perplexity == pytest.approx(perplexity(session(), TOKENS, 64))


def test_fewer_bits_cost_more() -> None:
    eight, four = compare([session(RowFormat.INT8), session(RowFormat.INT4)], session(), TOKENS, 64)
    assert eight.kl is not None and four.kl is not None
    assert 0 < eight.kl < four.kl
    assert four.top1 is not None and four.top1 < 1


def test_kl_and_top1_are_those_of_the_logits() -> None:
    (found,) = compare([session(RowFormat.INT4)], session(), TOKENS[:64], 64)
    want, got = session().step(TOKENS[:64])[:-1], session(RowFormat.INT4).step(TOKENS[:64])[:-1]
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (want.astype(float), got.astype(float)))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    assert found.kl == pytest.approx(float((p * np.log(p / q)).sum(-1).mean()), rel=1e-6)
    assert found.top1 == float((p.argmax(-1) == q.argmax(-1)).mean())


def test_only_whole_windows_are_scored() -> None:
    (found,) = compare([session()], None, TOKENS[:100], 32)
    assert found.tokens == 3 * 31
    assert found.kl is None and found.increase is None


@pytest.mark.parametrize(("count", "window"), [(20, 16), (60, 64), (192, 65)])
def test_too_short_a_text_and_too_long_a_window_are_refused(count: int, window: int) -> None:
    with pytest.raises(UsageError, match=r"too few|holds 64"):
        compare([session()], None, TOKENS[:count], window)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog and runs away again " * 20)
    return path


def test_a_bundle_is_measured_through_its_own_runtime(
    sample_bundle: Path, sample_model: Path, text: Path, tmp_path: Path
) -> None:
    report = measure_quality([sample_bundle, sample_model], text, [16, 32], limit=128)
    assert [row.quality.window for row in report.rows] == [16, 32]
    assert report.source == sample_model.name
    row = report.rows[0]
    assert (row.weights, row.cache, row.bits_per_weight) == ("fp32", "fp32", 32)
    assert row.quality.kl is not None and row.quality.kl < 1e-9
    plot_quality(report, tmp_path / "quality.svg")
    assert "fp32/fp32" in (tmp_path / "quality.svg").read_text()


def test_bundles_of_another_model_are_refused(sample_bundle: Path, text: Path) -> None:
    with pytest.raises(UsageError, match="not of one model"):
        measure_quality([sample_bundle, Path("samples/tiny")], text, [16])


@pytest.mark.parametrize("formats", ["int8", "int8/", "int5/int8"])
def test_formats_of_another_form_are_refused(formats: str) -> None:
    with pytest.raises(UsageError, match="not WEIGHTS/CACHE"):
        parse_formats(formats)


def test_the_command_exports_a_model_alone_in_the_formats_that_are_named(
    sample_model: Path, text: Path
) -> None:
    command = [str(Path(sys.executable).with_name("onekv")), "quality", str(sample_model)]
    command += ["--text", str(text), "--window", "32", "--tokens", "64", "--json"]
    command += ["--try", "int8/int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["weights"], row["cache"]) == ("int8", "int8")
    assert 0 < row["quality"]["kl"] < 0.1
