"""A Core ML bundle from the command line: exported, opened, run, verified and inspected."""

from __future__ import annotations

import json
import tempfile
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
from onekv.export.targets.coreml import package
from onekv.quantize.numbers import Number
from tests.specs import LLAMA
from tests.targets.coreml.conftest import lower_tiny, options


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


def test_every_weight_of_a_bundle_tells_how_it_is_stored(bundle: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(bundle), "--json"])
    found = json.loads(shown.stdout)
    weights = {weight["name"]: weight for weight in found["package"]["weights"]}
    spec = open_bundle(bundle).manifest.model
    up = weights["layers_0_mlp_up_proj_weight"]
    assert up["shape"] == [spec.ffn_size, spec.hidden_size]
    assert (up["stored"], up["granularity"], up["group"]) == ("int4", "block", 32)
    head = weights["embed_tokens_weight"]
    assert (head["stored"], head["granularity"]) == ("int8", "row")
    assert {weight["stored"] for weight in weights.values()} == {"int4", "int8", "fp16", "fp32"}
    assert (
        0 < sum(weight["bytes"] for weight in weights.values()) <= found["package"]["weight_bytes"]
    )


def test_nothing_is_left_where_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "folder"
    temporary.mkdir(), folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    lower_tiny(folder, LLAMA["llama Q-GQA-2"], options())

    def fails(*arguments: object) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr(package, "check_package", fails)
    with pytest.raises(RuntimeError, match="stopped"):
        lower_tiny(folder, LLAMA["llama Q-GQA-2"], options())
    assert [path.name for path in folder.iterdir()] == ["model.mlpackage"]
    assert not list(temporary.iterdir())


def test_what_the_device_cannot_hold_is_refused_before_any_work(sample_model: Path) -> None:
    checkpoint = open_checkpoint(sample_model)
    options = resolve_options(checkpoint.spec, Target.COREML, Asked(64, profile=Profile.NPU))
    with pytest.raises(UsageError, match="head_dim 16"):
        plan_export(checkpoint, options, None, need_tokenizer=True)
