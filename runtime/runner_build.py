"""The C++ runner as a program: built on first use against the runtime that is installed, and kept.

ExecuTorch promises no binary interface between versions, so its runner cannot be shipped ready
made; the sources are in the package (runtime/runner), and building them takes seconds.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from onekv import __version__
from onekv.errors import OnekvError
from onekv.runtime import cmake
from onekv.runtime.native import source_folder

_FIX = (
    "The runner is built on first use. It needs a C++ compiler and CMake 3.28: "
    "apt-get install g++ && pip install 'onekv[bench]'."
)


@dataclass(frozen=True)
class Toolchain:
    """What CMake is told to build for another machine than this; empty for this one.

    executorch: the folder of that machine's `executorch` package, unpacked from its wheel, or of
    a build of ExecuTorch that was installed there. The runner then holds onekv's operators.
    """

    settings: tuple[str, ...] = ()
    executorch: Path | None = None


def build_runner(
    runtime: str, cache: Path | None = None, toolchain: Toolchain | None = None
) -> Path:
    """The runner for `runtime` (executorch or onnx), compiled unless it was before.

    `cache` is the folder to keep it in; the user's own for caches unless given.

    Raises:
        OnekvError: the runtime, CMake or a compiler is missing, or the build fails.
    """
    toolchain = toolchain or Toolchain()
    sources = source_folder() / "runner"
    settings = [f"-DONEKV_RUNTIME={runtime}", f"-DONEKV_VERSION={__version__}"]
    depends = [sources]
    if runtime == "executorch":
        package = toolchain.executorch or _package("executorch", "executorch")
        settings.append(f"-Dexecutorch_DIR={package / 'share/cmake'}")
        if toolchain.executorch is not None:
            settings.append("-DONEKV_BUILTIN_OPERATORS=ON")
            depends += [source_folder() / "kernel", source_folder() / "adapters/executorch"]
        # Another version in the same place makes another program.
        depends.append(package / "version.py")
    project = cmake.Project(sources, tuple(depends), "onekv-runner", "onekv-runner", _FIX)
    return cmake.build(project, (*settings, *toolchain.settings), cache)


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


def _package(name: str, extra: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise OnekvError(f"{name} is not installed", f"pip install 'onekv[{extra}]'")
    return Path(found.submodule_search_locations[0])
