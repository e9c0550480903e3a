"""A Core ML bundle from the command line: exported, opened, run, verified and inspected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onekv.cli import app
from onekv.errors import UsageError
from onekv.export.bundle import open_bundle
from onekv.export.checkpoints import open_checkpoint
from onekv.export.options import Asked, Profile, Target
from onekv.export.pipeline import plan_export, run_export
from onekv.export.resolve import resolve_options
from onekv.export.reverify import verify_bundle
from onekv.quantize.numbers import Number


@pytest.fixture(scope="session")
def bundle(sample_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = open_checkpoint(sample_model)
    options = resolve_options(checkpoint.spec, Target.COREML, Asked(64, Number.INT4))
    plan = plan_export(checkpoint, options, None, need_tokenizer=True)
    return run_export(plan, tmp_path_factory.mktemp("bundles") / "coreml").path


def test_int4_is_verified_against_the_rounded_weights(bundle: Path, sample_model: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert manifest.entry == "model.mlpackage"
    found = verify_bundle(bundle, sample_model)
    assert found.passed
    assert found.against == "source model with weights rounded to int4"
    assert found.tolerance == 0.01


def test_a_bundle_is_run_and_inspected(bundle: Path) -> None:
    run = CliRunner().invoke(app, ["run", str(bundle), "The", "--max-tokens", "4", "--json"])
    assert len(json.loads(run.stdout)["generation"]["tokens"]) == 4
    shown = CliRunner().invoke(app, ["inspect", str(bundle / "model.mlpackage"), "--json"])
    summary = json.loads(shown.stdout)
    spec = open_bundle(bundle).manifest.model
    assert summary["states"] == {"cache": spec.layers * spec.kv_heads * spec.head_dim * 64 * 2}
    assert all(not function["dynamic"] for function in summary["functions"])


def test_what_the_device_cannot_hold_is_refused_before_any_work(sample_model: Path) -> None:
    checkpoint = open_checkpoint(sample_model)
    options = resolve_options(checkpoint.spec, Target.COREML, Asked(64, profile=Profile.NPU))
    with pytest.raises(UsageError, match="head_dim 16"):
        plan_export(checkpoint, options, None, need_tokenizer=True)
