"""The library as Android's compiler target makes it: what its phones refuse, the objects lack.

Android's own kit is not needed for that: the code is compiled for Android with the headers of a
cross compiler for Linux, and linked without a C library. It is not run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from onekv.runtime import native
from onekv.runtime.platforms import ANDROID_API

CROSS, CROSS_ROOT = "aarch64-linux-gnu-g++", Path("/usr/aarch64-linux-gnu")
TOOLS = ("cmake", "clang++", "llvm-objdump", "llvm-readelf", CROSS, "aarch64-linux-gnu-ld")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
PACKAGES = "apt-get install cmake clang llvm g++-aarch64-linux-gnu"

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} missing: {PACKAGES}")

# What bionic has at ANDROID_API, and what a static C++ library brings itself.
IN_BIONIC = {
    "exp2f", "free", "getenv", "getpid", "memcmp", "memcpy", "memmove", "memset", "posix_memalign",
    "pthread_mutex_lock", "pthread_mutex_trylock", "pthread_mutex_unlock", "strcmp", "strlen",
    "getauxval", "sysconf",
}  # fmt: skip
FROM_CXX = re.compile(r"_Z|__cxa_|__gxx_personality_v0$|_Unwind_Resume$")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The custom-op library, compiled and linked for arm64 Android."""
    folder = tmp_path_factory.mktemp("android")
    objects = [compile_for_android(command, folder) for command in commands(folder)]
    result = folder / native.ONNX
    linker = shutil.which("aarch64-linux-gnu-ld")
    clang(f"--ld-path={linker}", "-nostdlib", "-shared", "-Wl,-z,max-page-size=16384",
          *objects, "-o", result)  # fmt: skip
    return result


def commands(folder: Path) -> list[list[str]]:
    """How the cross compiler is called for each source; the first word is the compiler."""
    subprocess.run(
        ["cmake", "-S", native.source_folder(), "-B", folder, "-DCMAKE_SYSTEM_NAME=Linux",
         "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={CROSS}",
         "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        check=True, capture_output=True,
    )  # fmt: skip
    entries = json.loads((folder / "compile_commands.json").read_text())
    return [shlex.split(entry["command"]) for entry in entries]


def compile_for_android(command: list[str], folder: Path) -> Path:
    at = command.index("-o") + 1
    made = folder / Path(command[at]).name
    headers = next((CROSS_ROOT / "include/c++").iterdir())
    system = (headers, headers / "aarch64-linux-gnu", CROSS_ROOT / "include")
    includes = [word for path in system for word in ("-isystem", path)]
    clang("-w", "-nostdinc++", *includes, *command[1:at], made, *command[at + 1 :])
    return made


def clang(*arguments: object) -> None:
    target = f"--target=aarch64-linux-android{ANDROID_API}"
    done = subprocess.run(
        ["clang++", target, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def read(*command: object) -> str:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True
    ).stdout


def test_segments_fit_pages_of_16_kb(library: Path) -> None:
    segments = re.findall(r"^ +LOAD .* (0x\w+)$", read("llvm-readelf", "-lW", library), re.M)
    assert segments and all(int(alignment, 16) % 0x4000 == 0 for alignment in segments)


def test_no_thread_local_storage_is_used(library: Path) -> None:
    text = read("llvm-readelf", "-lrsW", library)
    assert "__emutls" not in text and not re.search(r"\bTLS\b|R_AARCH64_TLS", text)


def test_the_platforms_register_is_left_alone(library: Path) -> None:
    code = read("llvm-objdump", "-d", "--no-show-raw-insn", library)
    assert "RegisterCustomOps" in code
    assert not re.search(r"\b[xw]18\b", code)


def test_nothing_is_asked_of_the_system_that_old_phones_lack(library: Path) -> None:
    symbols = re.findall(r"UND (\w+)", read("llvm-readelf", "--dyn-syms", "-W", library))
    unknown = {s for s in symbols if not FROM_CXX.match(s)} - IN_BIONIC
    assert not unknown
