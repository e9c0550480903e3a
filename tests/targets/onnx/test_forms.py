"""Which form of attention a session runs, who decides it, and that both are verified."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from onekv.errors import BundleError, OnekvError, UsageError
from onekv.export.bundle import read_manifest
from onekv.export.reverify import verify_bundle
from onekv.runtime import native
from onekv.runtime.onnx_session import OnnxSession
from onekv.runtime.sessions import Session, open_session
from tests.specs import LLAMA
from tests.targets.onnx.conftest import CONTEXT, Lowered

SHARED, WIDE = LLAMA["llama Q-GQA-2"], LLAMA["llama Q-GQA-2, wide heads, biases"]


@pytest.fixture
def path(lowered: Lowered) -> Path:
    return lowered(SHARED)


def opened(path: Path, kernel: bool | None = None) -> Session:
    return open_session("onnx", path, CONTEXT, kernel)


def test_the_kernel_runs_unless_it_is_not_wanted(path: Path) -> None:
    assert opened(path).kernel and opened(path).operators.startswith("onekv kernel, ")
    assert not opened(path, kernel=False).kernel
    assert opened(path, kernel=False).operators == "stock operators"


def test_the_environment_decides_where_nothing_else_does(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEKV_OPS", "stock")
    assert not opened(path).kernel and opened(path, kernel=True).kernel
    monkeypatch.setenv("ONEKV_OPS", "onekv")
    assert opened(path).kernel and not opened(path, kernel=False).kernel
    monkeypatch.setenv("ONEKV_OPS", "fast")
    with pytest.raises(UsageError, match="ONEKV_OPS=fast"):
        opened(path)


def test_without_the_library_the_file_runs_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "find_library", lambda name: None)
    session = opened(path)
    assert session.operators == f"stock operators: {native.ONNX} is not installed"
    assert np.isfinite(session.step([1, 2, 3])).all()
    with pytest.raises(OnekvError, match=f"{native.ONNX} is not installed"):
        opened(path, kernel=True)


def test_a_shape_that_the_kernel_lacks_runs_in_stock_operators(lowered: Lowered) -> None:
    session = opened(lowered(WIDE))
    assert "head_dim must be a multiple of 8 (16 for rows in two parts)" in session.operators
    assert not session.kernel
    with pytest.raises(BundleError, match="head_dim must be a multiple of 8"):
        opened(lowered(WIDE), kernel=True)


def test_a_file_that_is_damaged_is_named_as_such(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"cannot load model\.onnx"):
        opened(damaged)


def test_bundles_of_one_form_refuse_the_choice(path: Path) -> None:
    with pytest.raises(UsageError, match="coreml bundles hold one form of attention"):
        open_session("coreml", path, CONTEXT, kernel=True)


def test_verify_checks_and_records_both_forms(sample_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(sample_bundle, tmp_path / "bundle")
    parity = verify_bundle(bundle)
    assert parity.passed and parity.operators.startswith("onekv kernel, ")
    assert parity.stock is not None and parity.stock.operators == "stock operators"
    assert parity.stock.decode != parity.decode
    assert read_manifest(bundle).parity == parity


@pytest.mark.parametrize("wrong_form", ["onekv kernel", "stock operators"])
def test_one_wrong_form_fails_the_verification(
    sample_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_form: str
) -> None:
    bundle = shutil.copytree(sample_bundle, tmp_path / "bundle")
    step = OnnxSession.step

    def wrong_step(self: OnnxSession, tokens: list[int]) -> np.ndarray:
        logits = step(self, tokens)
        return logits * 1.001 if self.operators.startswith(wrong_form) else logits

    monkeypatch.setattr(OnnxSession, "step", wrong_step)
    parity = verify_bundle(bundle)
    assert not parity.passed
    named = [reason.startswith("with stock operators: ") for reason in parity.reasons]
    assert all(named) == (wrong_form == "stock operators") == any(named)
