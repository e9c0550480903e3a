"""The kernel's self-check under sanitizers, and cross-built for ARM under qemu."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARM_COMPILER, ARM_LIBRARIES = "aarch64-linux-gnu-g++", "/usr/aarch64-linux-gnu"


def build(folder: Path, *options: str, program: str = "check") -> Path:
    """Build the self-check or the fuzz target in `folder` and give its path."""
    subprocess.run(
        ["cmake", "-S", ROOT / "runtime", "-B", folder, f"-DONEKV_{program.upper()}=ON", *options],
        check=True, capture_output=True,
    )  # fmt: skip
    target = f"onekv_kernel_{program}"
    subprocess.run(
        ["cmake", "--build", folder, "-j", "2", "--target", target], check=True, capture_output=True
    )
    return folder / "kernel" / target


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def arm_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [tool for tool in (ARM_COMPILER, "qemu-aarch64") if shutil.which(tool) is None]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} missing: apt-get install g++-aarch64-linux-gnu qemu-user"
        )
    return build(
        tmp_path_factory.mktemp("arm"),
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={ARM_COMPILER}",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpu", "best"),
    [("cortex-a53", "neon"), ("cortex-a76", "neon_dotprod"), ("max", "neon_i8mm")],
)
def test_arm_build_agrees_with_plain_code(arm_check: Path, cpu: str, best: str) -> None:
    output = run("qemu-aarch64", "-L", ARM_LIBRARIES, "-cpu", cpu, arm_check, 10)
    assert output.splitlines()[-1].startswith(f"{best}: largest relative error")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_no_sanitizer_objects(tmp_path: Path, sanitizers: str) -> None:
    flags = f"-fsanitize={sanitizers} -fno-sanitize-recover=all -O1"
    check = build(tmp_path, "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS={flags}")
    assert "plain: largest relative error" in run(check, 6)


@pytest.mark.slow
def test_no_input_of_the_fuzzer_makes_the_kernel_stray(tmp_path: Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("clang++ missing: apt-get install clang")
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -O1"
    target = build(
        tmp_path / "build", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_COMPILER=clang++",
        f"-DCMAKE_CXX_FLAGS={flags}", program="fuzz",
    )  # fmt: skip
    (tmp_path / "corpus").mkdir()
    run(target, "-max_total_time=30", "-max_len=64", "-seed=1", tmp_path / "corpus")
    assert len(list((tmp_path / "corpus").iterdir())) > 50  # it explored
