"""The C++ runner as a program: built on first use against the runtime that is installed, and kept.

ExecuTorch promises no binary interface between versions, so its runner cannot be shipped ready
made; the sources are in the package (runtime/runner), and building them takes seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onekv import __version__
from onekv.errors import OnekvError
from onekv.runtime.native import source_folder

PROGRAM = "onekv-runner"


@dataclass(frozen=True)
class Toolchain:
    """What CMake is told to build for another machine than this; empty for this one.

    executorch: the folder of that machine's `executorch` package, unpacked from its wheel.
    """

    settings: tuple[str, ...] = ()
    executorch: Path | None = None


ARM64_LINUX = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
)


@dataclass(frozen=True)
class _Build:
    """version: the runtime's, where the program is linked to it."""

    cmake: str
    sources: Path
    settings: tuple[str, ...]
    version: str

    @property
    def name(self) -> str:
        """A folder name that changes with everything that the program depends on."""
        parts = (self.settings, self.version, os.environ.get("CXX"))
        total = hashlib.sha256(repr(parts).encode())
        for source in sorted(self.sources.iterdir()):
            total.update(source.read_bytes())
        return f"runner-{total.hexdigest()[:16]}"


def build_runner(
    runtime: str, cache: Path | None = None, toolchain: Toolchain | None = None
) -> Path:
    """The runner for `runtime` (executorch or onnx), compiled unless it was before.

    `cache` is the folder to keep it in; the user's own for caches unless given.

    Raises:
        OnekvError: the runtime, CMake or a compiler is missing, or the build fails.
    """
    build = _describe(runtime, toolchain or Toolchain())
    folder = (cache or _cache_folder()) / build.name
    program = folder / PROGRAM
    if program.is_file():
        return program
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _run(build.cmake, "-S", str(build.sources), "-B", scratch, *build.settings)
        _run(build.cmake, "--build", scratch, "--parallel")
        folder.mkdir(exist_ok=True)
        # Renamed, so that a second process never sees half a program.
        (Path(scratch) / PROGRAM).replace(program)
    return program


def onnx_runtime_library() -> Path:
    """The library of the installed onnxruntime package.

    Raises:
        OnekvError: it is not installed.
    """
    folder = _package("onnxruntime", "onnx") / "capi"
    found = sorted(folder.glob("libonnxruntime.so*"))
    if not found:
        raise OnekvError(
            f"{folder} holds no libonnxruntime.so", "pip install --force-reinstall onnxruntime"
        )
    return found[-1]


def _describe(runtime: str, toolchain: Toolchain) -> _Build:
    settings, version = [f"-DONEKV_RUNTIME={runtime}", f"-DONEKV_VERSION={__version__}"], ""
    if runtime == "executorch":
        package = toolchain.executorch or _package("executorch", "executorch")
        settings.append(f"-Dexecutorch_DIR={package / 'share/cmake'}")
        version = (package / "version.py").read_text()
    return _Build(
        cmake=_find_cmake(),
        sources=source_folder() / "runner",
        settings=(*settings, *toolchain.settings),
        version=version,
    )


def _find_cmake() -> str:
    # pip puts it beside this interpreter, which need not be on the path.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=folders)
    if cmake is None:
        raise OnekvError("CMake is missing: the runner is built on first use", _FIX)
    return cmake


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise OnekvError(f"the runner cannot be built:\n{last}", _FIX)


_FIX = "It needs a C++ compiler and CMake 3.28: apt-get install g++ && pip install 'onekv[bench]'."


def _package(name: str, extra: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise OnekvError(f"{name} is not installed", f"pip install 'onekv[{extra}]'")
    return Path(found.submodule_search_locations[0])


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onekv"
