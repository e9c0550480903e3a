"""Libraries that a bundle ships: where they lie, who builds them, and that genai runs with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onekv.errors import OnekvError, UsageError
from onekv.export.bundle import open_bundle
from onekv.export.checkpoints import open_checkpoint
from onekv.export.options import Asked, ExportOptions, Target
from onekv.export.pipeline import plan_export, run_export
from onekv.export.resolve import resolve_options
from onekv.export.targets import LowerRequest, check_target
from onekv.export.targets.onnx.genai import write_genai_config
from onekv.export.targets.onnx.libraries import ship_libraries
from onekv.export.targets.onnx.lower import FILE
from onekv.export.verify import difference
from onekv.quantize.numbers import Number
from onekv.runtime import native, platforms
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from onekv.runtime.platforms import Platform, host_platform, onnx_library
from tests.specs import LLAMA, PAPER, llama_spec
from tests.targets.onnx.conftest import CONTEXT, Lowered, without_body
from tests.targets.onnx.test_genai import PROMPT, genai_tokens

ROOT = Path(__file__).parents[3]
OLD_RUNTIME = ROOT / "build" / "onnxruntime-1.24.4"
HOST = host_platform()
SHARED, WIDE = LLAMA["llama Q-GQA-2"], LLAMA["llama Q-GQA-2, wide heads, biases"]
needs_host = pytest.mark.skipif(HOST is None, reason="this platform has no name in --platform")


def options(*shipped: Platform) -> ExportOptions:
    return ExportOptions(Target.ONNX, CONTEXT, platforms=shipped)


@needs_host
def test_a_bundle_ships_and_lists_the_installed_library(sample_model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sample_model)
    asked = Asked(platforms=(HOST, HOST))
    plan = plan_export(
        checkpoint,
        resolve_options(checkpoint.spec, Target.ONNX, asked),
        None,
        need_tokenizer=True,
    )
    bundle = run_export(plan, tmp_path / "bundle")
    shipped = open_bundle(bundle.path).file(f"lib/{HOST}/{native.ONNX}")
    assert shipped is not None
    assert shipped.read_bytes() == native.require_library(native.ONNX).read_bytes()
    assert bundle.manifest.options.platforms == (HOST,)


@needs_host
@pytest.mark.parametrize("spec", [SHARED, PAPER["QKV"]], ids=["Attend", "AttendKV"])
def test_genai_runs_attention_in_the_library_that_the_bundle_ships(
    lowered: Lowered, spec: object, tmp_path: Path
) -> None:
    """The file's own body is removed, so that nothing else could run it."""
    stock, folder = lowered(spec).parent, without_body(lowered(spec), tmp_path / "own").parent
    ship_libraries((HOST,), folder)
    write_genai_config(LowerRequest(spec, options(HOST), dict, (1,), None), folder, FILE)
    config = json.loads((folder / "genai_config.json").read_text())
    named = config["model"]["decoder"]["session_options"]["custom_ops_library"]
    assert named == f"lib/{HOST}/{native.ONNX}"
    assert genai_tokens(folder, 30) == genai_tokens(stock, 30)
    (folder / named).unlink()
    with pytest.raises(Exception, match=native.ONNX):
        genai_tokens(folder, len(PROMPT) + 1)


@pytest.mark.skipif(not OLD_RUNTIME.is_dir(), reason=f"no {OLD_RUNTIME.name}: run `make test`")
def test_the_same_library_gives_the_same_logits_in_onnxruntime_1_24(lowered: Lowered) -> None:
    paths = [lowered(SHARED), lowered(LLAMA["llama GQA-2"]), lowered(SHARED, Number.FP16)]
    script = f"""
import json, onnxruntime
from pathlib import Path
from tests.targets.onnx.test_libraries import kernel_logits
rows = [kernel_logits(Path(path)).tolist() for path in {[str(path) for path in paths]}]
print(json.dumps([onnxruntime.__version__, rows]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{OLD_RUNTIME}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    version, rows = json.loads(done.stdout)
    assert version == "1.24.4"
    errors = [
        difference(np.array(old), kernel_logits(path)).relative_l2
        for path, old in zip(paths, rows, strict=True)
    ]
    assert max(errors[:2]) <= 1e-5 and errors[2] <= 1e-3


def kernel_logits(path: Path) -> np.ndarray:
    """Logits of a few tokens, attention in the library."""
    session = OnnxSession(path, CONTEXT, OnnxOptions(kernel=True))
    assert session.kernel
    return np.concatenate([session.step([1, 2, 3]), session.step([4])])


def test_a_bundle_without_a_library_names_none(lowered: Lowered) -> None:
    config = json.loads((lowered(SHARED).parent / "genai_config.json").read_text())
    assert "custom_ops_library" not in config["model"]["decoder"]["session_options"]


def test_android_without_its_kit_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_NDK", raising=False)
    with pytest.raises(OnekvError, match="ANDROID_NDK is not set") as caught:
        check_target(SHARED, options(Platform.ANDROID_ARM64))
    assert "Install the NDK" in caught.value.fix


def test_a_folder_that_is_no_android_kit_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANDROID_NDK", str(tmp_path))
    with pytest.raises(OnekvError, match=r"holds no android\.toolchain\.cmake"):
        check_target(SHARED, options(Platform.ANDROID_ARM64))


def test_android_is_built_by_its_kits_own_tool_chain_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tool chain file that stops CMake shows what it was given."""
    file = tmp_path / "build/cmake/android.toolchain.cmake"
    file.parent.mkdir(parents=True)
    file.write_text('message(FATAL_ERROR "kit: ${ANDROID_ABI} ${ANDROID_PLATFORM} ${ANDROID_STL}")')
    monkeypatch.setenv("ANDROID_NDK", str(tmp_path))
    with pytest.raises(OnekvError, match="kit: arm64-v8a android-26 c\\+\\+_static"):
        onnx_library(Platform.ANDROID_ARM64, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_missing_cross_compiler_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platforms.shutil, "which", lambda *_, **__: None)
    other = Platform.LINUX_AARCH64 if HOST is Platform.LINUX_X86_64 else Platform.LINUX_X86_64
    with pytest.raises(OnekvError, match=r"linux-gnu-g\+\+ is missing") as caught:
        check_target(SHARED, options(other))
    assert "apt-get install cmake g++-" in caught.value.fix


def test_a_model_that_the_kernel_does_not_take_ships_no_library() -> None:
    with pytest.raises(UsageError, match="head_dim 24: the kernel takes multiples of 16"):
        check_target(WIDE, options(Platform.LINUX_X86_64))
    check_target(WIDE, options())


def test_a_target_without_libraries_refuses_the_option() -> None:
    spec = llama_spec(SHARED.sharing)
    with pytest.raises(UsageError, match="coreml bundles ship no library"):
        resolve_options(spec, Target.COREML, Asked(platforms=(Platform.ANDROID_ARM64,)))
