"""What a device cannot hold, and packages that are damaged or hostile, are refused by name."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import pytest

from onekv.errors import BundleError, OnekvError, UsageError
from onekv.export.options import Asked, Profile, Target
from onekv.export.plan import plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.targets.coreml.options import CoreMLOptions, check_options
from onekv.export.targets.coreml.package import check_package
from onekv.export.targets.coreml.rules import RULES, check
from onekv.export.targets.coreml.versions import check_versions
from onekv.quantize.numbers import Number
from onekv.runtime.mil import Evaluator, read_package
from tests.specs import LLAMA
from tests.targets.coreml.conftest import Lowered, options

SPEC = replace(LLAMA["llama Q-GQA-2"], max_positions=100_000, head_dim=64)
MODEL = Path("Data") / "com.apple.CoreML" / "model.mlmodel"

REFUSED = {
    "a context between multiples": (SPEC, CoreMLOptions(100), "--context 96"),
    "a context past the positions": (
        replace(SPEC, max_positions=100),
        CoreMLOptions(128),
        "--context 96",
    ),
    "a context past the Neural Engine": (
        SPEC,
        CoreMLOptions(32_768, Profile.NPU),
        "--context 16384",
    ),
    "a head_dim between multiples": (
        replace(SPEC, head_dim=80),
        CoreMLOptions(64, Profile.NPU),
        "nearest is 64",
    ),
    "a wide feed-forward block": (
        replace(SPEC, ffn_size=20_000),
        CoreMLOptions(64, Profile.NPU),
        "--profile gpu",
    ),
    "a prefill wider than the context": (SPEC, CoreMLOptions(32, prefill=64), "from 1 to 32"),
}


@pytest.mark.parametrize(("spec", "chosen", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_device_cannot_hold_is_refused(spec: Any, chosen: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_options(spec, chosen)


def test_int4_in_blocks_on_the_neural_engine_is_explained() -> None:
    asked = Asked(64, Number.INT4, profile=Profile.NPU, group=32)
    with pytest.raises(UsageError, match="four times the memory") as refused:
        check(SPEC, resolve_options(SPEC, Target.COREML, asked))
    assert "4-bit palettes" in refused.value.fix


@pytest.mark.parametrize(
    ("target", "said"), [(Target.COREML, "need one of iOS18, iOS26"), (Target.ONNX, "have none")]
)
def test_a_deployment_target_that_lacks_what_a_package_needs_is_refused(
    target: Target, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_options(SPEC, target, Asked(64, deployment_target="iOS17"))


def test_a_user_is_told_of_a_large_package_and_of_logits_in_parts() -> None:
    large = replace(SPEC, vocab_size=50_304, hidden_size=2048, layers=22, ffn_size=8192)
    chosen = resolve_options(large, Target.COREML, Asked(64, profile=Profile.NPU))
    size, parts = RULES.notes(large, chosen, plan_weights_of(large, chosen))
    assert "Above about 1 GB" in size
    assert "4 outputs" in parts
    small = resolve_options(SPEC, Target.COREML, Asked(64))
    assert RULES.notes(SPEC, small, plan_weights_of(SPEC, small)) == ()


def test_number_formats_that_core_ml_lacks_are_refused() -> None:
    for weights, cache in ((Number.FP32, None), (None, Number.INT8)):
        with pytest.raises(UsageError, match="coreml bundles know"):
            resolve_options(SPEC, Target.COREML, Asked(64, weights, cache))


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"coremltools": "9.0", "numpy": "2.4.1"}, "cannot convert with numpy 2.4.1"),
        ({"coremltools": "8.3.0", "numpy": "2.3.5"}, "older than 9.0"),
    ],
)
def test_versions_that_break_the_conversion_are_named(
    installed: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onekv.export.targets.coreml import versions

    monkeypatch.setattr(versions, "version", installed.__getitem__)
    with pytest.raises(OnekvError, match=said):
        check_versions()


def test_a_missing_coremltools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from onekv.export.targets.coreml import versions

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(OnekvError, match="not installed"):
        check_versions()


@pytest.fixture
def package(lowered: Lowered, tmp_path: Path) -> Path:
    """A package of its own that a test may damage."""
    return Path(
        shutil.copytree(lowered(LLAMA["llama Q-GQA-2"], options()), tmp_path / "p.mlpackage")
    )


def _edit(package: Path, change: Callable[[Any], None]) -> None:
    model = ct.proto.Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


def _first(model: Any, kind: str) -> Any:
    function = model.mlProgram.functions["decode"]
    block = function.block_specializations[function.opset]
    return next(op for op in block.operations if op.type == kind)


def test_an_unknown_operator_is_named(package: Path) -> None:
    _edit(package, lambda model: setattr(_first(model, "linear"), "type", "lstm"))
    with pytest.raises(OnekvError, match="lstm"):
        Evaluator(read_package(package), "decode")


def test_a_custom_layer_is_refused(package: Path) -> None:
    _edit(package, lambda model: setattr(_first(model, "linear"), "type", "custom_layer"))
    with pytest.raises(OnekvError, match="custom layer"):
        check_package(package)


def test_a_cut_weight_file_is_refused(package: Path) -> None:
    weights = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:4096])
    with pytest.raises(BundleError, match=r"weight\.bin"):
        read_package(package)


def test_a_cut_program_is_refused(package: Path) -> None:
    (package / MODEL).write_bytes((package / MODEL).read_bytes()[:-100])
    with pytest.raises(BundleError, match="not a readable package"):
        read_package(package)


def test_a_manifest_that_leads_outside_is_refused(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../secret"
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside itself"):
        read_package(package)


def test_weights_outside_the_package_are_refused(package: Path) -> None:
    def change(model: Any) -> None:
        function = model.mlProgram.functions["decode"]
        for op in function.block_specializations[function.opset].operations:
            if op.type == "const" and op.attributes["val"].HasField("blobFileValue"):
                op.attributes["val"].blobFileValue.fileName = "@model_path/../../weight.bin"

    _edit(package, change)
    with pytest.raises(BundleError, match="outside itself"):
        read_package(package)
