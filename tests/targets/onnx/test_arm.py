"""An exported file on ARM: the cross-built library in ONNX Runtime's own ARM build, emulated."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from onekv.export.model.spec import ModelSpec
from onekv.quantize.numbers import Number
from onekv.runtime.generate import Generation, Sampling, generate
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from onekv.runtime.platforms import Platform, cmake_settings, onnx_library
from onekv.runtime.runner_build import Toolchain, build_runner
from tests.runner.running import run
from tests.specs import LLAMA, PAPER
from tests.targets.onnx.conftest import CONTEXT, Lowered, without_body

ARM_RUNTIME = Path(__file__).parents[3] / "build" / "onnxruntime-1.31.1-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"
PROMPT = [5, 17, 3, 9, 40]
# ONNX Runtime reads its processor's name there, and takes a host's of another kind for an error.
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def reason() -> str | None:
    """Why this cannot run here."""
    tools = ("aarch64-linux-gnu-g++", "qemu-aarch64", "unshare", "cmake")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"{missing} missing: apt-get install cmake g++-aarch64-linux-gnu qemu-user"
    if platform.machine() == "aarch64":
        return "this machine is no emulator"
    if not ARM_RUNTIME.is_dir():
        return f"no {ARM_RUNTIME.name}: run `make test-slow`"
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        return "mount namespaces are not allowed here"
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason() is not None, reason=str(reason())),
]


@pytest.fixture(scope="module")
def arm_runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The runner, the runtime and the library, all for ARM, before the processor is named."""
    cpuinfo = tmp_path_factory.mktemp("proc") / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    runner = build_runner("onnx", toolchain=Toolchain(cmake_settings(Platform.LINUX_AARCH64)))
    (runtime,) = ARM_RUNTIME.glob("onnxruntime/capi/libonnxruntime.so.*")
    script = f'mount --bind {cpuinfo} /proc/cpuinfo && exec qemu-aarch64 -L {LIBRARIES} -cpu "$@"'
    return ["unshare", "-rm", "sh", "-c", script, "sh", str(runner), str(runtime)]


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
@pytest.mark.parametrize("spec", [LLAMA["llama Q-GQA-2"], PAPER["QKV"]], ids=lambda s: s.variant)
def test_the_cross_built_library_gives_the_tokens_of_this_machine(
    arm_runner: list[str], lowered: Lowered, spec: ModelSpec, cpu: str, tmp_path: Path
) -> None:
    """The file's own body is removed, so that nothing but the library runs attention."""
    path = lowered(spec, Number.FP32)
    *shell, runner, runtime = arm_runner
    program = [*shell, cpu, runner, "--runtime", runtime]
    program += ["--operators", str(onnx_library(Platform.LINUX_AARCH64))]
    model = without_body(path, tmp_path)
    result = run(program, model, "--context", CONTEXT, "--prompt", "-", "--decode", 20,
                 "--ignore-eos", prompt=PROMPT)  # fmt: skip
    assert result.code == 0, result.errors
    session = OnnxSession(path, CONTEXT, OnnxOptions(kernel=False))
    answer = Generation(len(PROMPT))
    assert result.tokens == list(generate(session, answer, PROMPT, Sampling(), (), 20))
