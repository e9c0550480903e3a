"""onekv's operators for ExecuTorch: one library, built once against the runtime that is installed.

ExecuTorch promises no binary interface between versions, so the few lines that meet its headers are
compiled on first use and kept; the kernel behind them is the library that onekv ships.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import onekv.runtime
from onekv.errors import OnekvError
from onekv.runtime.cmake import cache_folder, kept
from onekv.runtime.kernel_library import library_path

_SOURCES = ("attend.cpp", "register.cpp", "rotate.cpp")
_COMPILERS = ("c++", "g++", "clang++")
# ExecuTorch's own list, from its CMake configuration: with fewer, its classes change their layout.
_FLAGS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-DC10_USING_CUSTOM_GENERATED_MACROS",
    "-DET_USE_THREADPOOL",
    "-DET_EVENT_TRACER_ENABLED",
)


@dataclass(frozen=True)
class _Parts:
    """What the library is made of. executorch: the folder of the installed package."""

    compiler: str
    executorch: Path
    version: str
    kernel: Path
    sources: tuple[Path, ...]
    header: Path

    @property
    def command(self) -> list[str]:
        """The compiler's arguments, without the output."""
        include = self.executorch / "include"
        folders = (include, include / "executorch/runtime/core/portable_type/c10")
        libraries = self.executorch / "lib"
        return [
            self.compiler,
            *_FLAGS,
            *(f"-I{folder}" for folder in (*folders, self.header.parent)),
            *map(str, self.sources),
            str(self.kernel),
            f"-L{libraries}",
            "-lexecutorch",
            "-lexecutorch_threadpool",
            *(f"-Wl,-rpath,{folder}" for folder in (libraries, self.kernel.parent)),
        ]

    @property
    def name(self) -> str:
        """A file name that changes with everything that the file depends on."""
        total = hashlib.sha256(repr((self.command, self.version)).encode())
        for source in (*sorted(self.header.parent.glob("*.h")), *self.sources):
            total.update(source.read_bytes())
        return f"libonekv_executorch-{self.version}-{total.hexdigest()[:16]}.so"


@functools.cache
def load() -> Path:
    """Give the ExecuTorch of this process onekv's operators; the library's path.

    To be called before a program that uses them is loaded, by any of ExecuTorch's own tools.

    Raises:
        OnekvError: ExecuTorch or a compiler is missing, the build fails, or another copy of
            the library is in this process.
    """
    path = build()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise OnekvError(
            f"{path.name} cannot be loaded: {error}", f"Remove {path}: it is built again."
        ) from error
    if not library.onekv_executorch_registered():
        raise OnekvError(
            f"another copy of onekv's operators for ExecuTorch is in this process, so {path} "
            "was not used",
            "Load one copy only: drop the other, or leave this call out.",
        )
    return path


def build(cache: Path | None = None) -> Path:
    """The library for the installed ExecuTorch, compiled unless it was before.

    `cache` is the folder to keep it in; the user's own for caches unless given.

    Raises:
        OnekvError: ExecuTorch or a compiler is missing, or the compiler fails.
    """
    parts = _find_parts()
    return kept(cache or cache_folder(), parts.name, functools.partial(_compile, parts))


def _compile(parts: _Parts, scratch: Path) -> Path:
    made = scratch / parts.name
    command = [*parts.command, "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OnekvError(
            f"{parts.compiler} cannot build onekv's operators for ExecuTorch "
            f"{parts.version}:\n{done.stderr[-2000:]}",
            "Use the ExecuTorch that onekv asks for: pip install 'onekv[executorch]'.",
        )
    return made


def _find_parts() -> _Parts:
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise OnekvError("ExecuTorch is not installed", "pip install 'onekv[executorch]'")
    compiler = os.environ.get("CXX") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise OnekvError(
            "no C++ compiler: onekv's operators for ExecuTorch are built on first use",
            "Install one (apt install g++), or export with --ops stock.",
        )
    return _Parts(
        compiler,
        Path(found.submodule_search_locations[0]),
        importlib.metadata.version("executorch"),
        library_path(),
        tuple(_source(f"adapters/executorch/{name}") for name in _SOURCES),
        _source("kernel/attend.h"),
    )


def _source(name: str) -> Path:
    for folder in onekv.runtime.__path__:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise OnekvError(f"onekv/runtime/{name} is not installed", "Install onekv again.")
