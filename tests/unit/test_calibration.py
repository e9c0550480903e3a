"""Calibrated int4 weights: less error on what the layers see, on the same grid, or a refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onekv.export.calibrate import calibrate_weights, calibration_windows
from onekv.export.model.decoder import build_decoder
from onekv.export.options import ExportOptions, Target
from onekv.export.plan import plan_weights_of
from onekv.quantize.gptq import quantise_calibrated
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight, quantise, quantise_weights
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids

ONEKV = str(Path(sys.executable).with_name("onekv"))


def correlated(rows: int = 512, columns: int = 64) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, 8, generator=g) @ torch.randn(8, columns, generator=g) + 0.1 * (
        torch.randn(rows, columns, generator=g)
    )


def test_products_with_the_calibration_inputs_change_less() -> None:
    inputs, weight = correlated(), torch.randn(48, 64)
    plain = quantise(weight, Number.INT4, 32).dequantise()
    found = quantise_calibrated(weight, inputs.T @ inputs, Number.INT4, 32)
    assert found.values.min() >= -8 and found.values.max() <= 7
    assert torch.equal(found.scales.bfloat16().float(), found.scales)
    error, before = ((inputs @ (w - weight).T).norm() for w in (found.dequantise(), plain))
    assert error < 0.5 * before


def test_uncorrelated_inputs_leave_plain_rounding() -> None:
    weight = torch.randn(48, 64)
    found = quantise_calibrated(weight, torch.eye(64), Number.INT4, 32)
    plain = quantise(weight, Number.INT4, 32)
    assert torch.equal(found.values, plain.values) and torch.equal(found.scales, plain.scales)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    inputs, weight = correlated(), torch.randn(48, 64)
    inputs[:, 5] = 0
    found = quantise_calibrated(weight, inputs.T @ inputs, Number.INT4, 32)
    assert found.dequantise().isfinite().all()


def output_error(state: dict[str, Tensor], weights: dict[str, QuantisedWeight], x: Tensor) -> float:
    dense = {name: weight.dequantise() for name, weight in weights.items()}
    pos = torch.zeros(1, dtype=torch.int64)
    want, got = (build_decoder(SPEC, s)(x, pos) for s in (state, {**state, **dense}))
    return float(((got - want).norm() / want.norm()).detach())


SPEC = LLAMA["llama Q-GQA-2"]


@pytest.mark.parametrize("spec", [SPEC, PAPER["Q-GQA-2"]], ids=["rope", "learned"])
def test_every_matrix_of_the_plan_is_rounded_and_the_state_is_left_alone(spec: object) -> None:
    state = dict(tiny_decoder(spec).state_dict())  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in state.items()}
    plan = plan_weights_of(spec, ExportOptions(Target.ONNX, 64, Number.INT4))  # type: ignore[arg-type]
    windows = token_ids(spec, 64, batch=4)  # type: ignore[arg-type]
    steps: list[tuple[int, int]] = []
    found = calibrate_weights(spec, state, plan, windows, lambda *step: steps.append(step))  # type: ignore[arg-type]
    assert set(found) == {tensor.name for tensor in plan.rounded}
    assert steps == [(1, 2), (2, 2)]
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_the_whole_model_comes_closer_to_its_source() -> None:
    state = dict(tiny_decoder(SPEC).state_dict())
    plan = plan_weights_of(SPEC, ExportOptions(Target.ONNX, 64, Number.INT4))
    windows = token_ids(SPEC, 64, batch=32)
    plain = quantise_weights(state, plan, lambda *_: None)
    found = calibrate_weights(SPEC, state, plan, windows, lambda *_: None)
    other = token_ids(SPEC, 64, batch=2, seed=7)
    assert output_error(state, found, other) < output_error(state, plain, other)


def test_windows_come_from_the_start_of_the_text() -> None:
    windows = calibration_windows(list(range(100)) * 50, SPEC)
    assert windows.shape == (5000 // 64, 64) and windows[0].tolist() == list(range(64))


def export(model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [ONEKV, "export", str(model), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_too_short_a_text_is_refused_before_any_work(sample_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("too short to say anything")
    done = export(sample_model, "--weights", "int4", "--calibrate", text, "-o", tmp_path / "b")
    assert done.returncode == 2 and "too few to calibrate" in done.stderr


def test_a_calibration_of_nothing_is_refused(sample_model: Path, tmp_path: Path) -> None:
    done = export(sample_model, "--weights", "int8", "--calibrate", "shipped", "--dry-run")
    assert done.returncode == 2 and "is for int4 weights" in done.stderr


def test_a_calibrated_bundle_is_checked_and_says_so(sample_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = export(sample_model, "--weights", "int4", "--calibrate", "shipped", "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert '"calibration": "shipped"' in done.stdout
    command = [ONEKV, "verify", str(out), "--source", str(sample_model), "--json"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and '"passed": true' in again.stdout
