"""Exported programs in the C++ runner: the Python session's tokens, on this machine and on ARM."""

from __future__ import annotations

import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from onekv.export.model.spec import ModelSpec
from onekv.export.options import Ops
from onekv.quantize.numbers import Number
from onekv.runtime import executorch_library
from onekv.runtime.executorch_session import ExecutorchSession
from onekv.runtime.generate import Generation, Sampling, generate
from onekv.runtime.platforms import Platform, cmake_settings
from onekv.runtime.runner_build import Toolchain, build_runner
from tests.runner.running import check_failure, run
from tests.specs import LLAMA
from tests.targets.executorch.conftest import CONTEXT, Lowered

SHARED = LLAMA["llama Q-GQA-2"]
# The same program as in test_stock.py.
STOCK = replace(SHARED, layers=1)
ARM_PACKAGE = Path(__file__).parents[3] / "build/executorch-1.5.1-aarch64/executorch"
ARM_LIBRARIES = "/usr/aarch64-linux-gnu"
PROMPT = [5, 17, 3, 9, 40]
ARGUMENTS = ["--prompt", "-", "--decode", 20, "--ignore-eos"]


def session_tokens(path: Path) -> list[int]:
    """The Python session's greedy continuation of PROMPT."""
    session, answer = ExecutorchSession(path, CONTEXT), Generation(len(PROMPT))
    return list(generate(session, answer, PROMPT, Sampling(), (), 20))


@pytest.fixture(scope="module")
def runner() -> list[str]:
    return [str(build_runner("executorch"))]


def test_the_runner_gives_the_tokens_of_the_python_session(
    runner: list[str], lowered: Lowered
) -> None:
    path = lowered(SHARED)
    library = executorch_library.build()
    result = run(runner, path, *ARGUMENTS, "--operators", library, prompt=PROMPT)
    assert result.code == 0, result.errors
    assert result.tokens == session_tokens(path)
    # One arena of mutable tensors: the cache and nothing else.
    cache = SHARED.layers * SHARED.kv_heads * SHARED.head_dim * 4 * CONTEXT
    assert result.event("model")["cache_bytes"] == cache


def test_a_missing_and_a_second_library_are_told_and_abort_nothing(
    runner: list[str], lowered: Lowered, tmp_path: Path
) -> None:
    path = lowered(SHARED)
    missing = run(runner, path, *ARGUMENTS)
    check_failure(missing, "missing-operator", "onekv::attend.out")
    library = executorch_library.build()
    second = tmp_path / "second.so"
    shutil.copy(library, second)
    both = ["--operators", library, "--operators", second]
    result = run(runner, path, *ARGUMENTS, *both)
    check_failure(result, "missing-library", "another copy of it is in this process")


def test_a_program_of_stock_operators_is_told_where_they_are(
    runner: list[str], lowered: Lowered
) -> None:
    result = run(runner, lowered(STOCK, ops=Ops.STOCK), *ARGUMENTS, prompt=PROMPT)
    check_failure(result, "missing-operator", "export it with --ops onekv")
    assert "llama::update_cache.out" in result.errors


def reason() -> str | None:
    """Why ARM cannot be emulated here."""
    missing = [t for t in ("aarch64-linux-gnu-g++", "qemu-aarch64") if shutil.which(t) is None]
    if missing:
        return f"{missing} missing: apt-get install g++-aarch64-linux-gnu qemu-user"
    if platform.machine() == "aarch64":
        return "this machine is no emulator"
    return None if ARM_PACKAGE.is_dir() else f"no {ARM_PACKAGE.parent.name}: run `make test-slow`"


@pytest.fixture(scope="module")
def arm_runner() -> Path:
    """Linked to the ARM wheel's libraries, onekv's operators inside."""
    return build_runner(
        "executorch", toolchain=Toolchain(cmake_settings(Platform.LINUX_AARCH64), ARM_PACKAGE)
    )


@pytest.mark.slow
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
@pytest.mark.parametrize(
    ("spec", "cache"), [(SHARED, Number.FP32), (SHARED, Number.INT8), (LLAMA["llama MQA"], None)]
)
def test_on_arm_the_tokens_are_those_of_this_machine(
    arm_runner: Path, lowered: Lowered, spec: ModelSpec, cache: Number | None, cpu: str
) -> None:
    path = lowered(spec, **({} if cache is None else {"cache": cache}))
    program = ["qemu-aarch64", "-L", ARM_LIBRARIES, "-cpu", cpu, arm_runner]
    result = run(program, path, *ARGUMENTS, prompt=PROMPT)
    assert result.code == 0, result.errors
    assert result.tokens == session_tokens(path)
