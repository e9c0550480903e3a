"""C++ built on demand with CMake, and kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onekv.errors import OnekvError


@dataclass(frozen=True)
class Project:
    """What is built, and from what.

    folder: the CMake project. sources: files and folders that the result depends on. target and
    product: CMake's name of the result and its path below the build folder. fix: what a person
    does when the build fails.
    """

    folder: Path
    sources: tuple[Path, ...]
    target: str
    product: str
    fix: str

    def name(self, settings: Sequence[str]) -> str:
        """A folder name that changes with everything that the result depends on."""
        total = hashlib.sha256(repr((tuple(settings), os.environ.get("CXX"))).encode())
        for path in self.sources:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file() and "__pycache__" not in file.parts:
                    total.update(file.read_bytes())
        return f"{self.target}-{total.hexdigest()[:16]}"


def build(project: Project, settings: Sequence[str] = (), cache: Path | None = None) -> Path:
    """The project's product, compiled unless it was before.

    `settings` are CMake's `-D` arguments. `cache` is the folder to keep it in; the user's own
    for caches unless given.

    Raises:
        OnekvError: CMake or a compiler is missing, or the build fails.
    """

    def make(scratch: Path) -> Path:
        cmake = find_cmake(project.fix)
        _run(project, cmake, "-S", str(project.folder), "-B", str(scratch), *settings)
        _run(project, cmake, "--build", str(scratch), "--parallel", "--target", project.target)
        return scratch / project.product

    name = f"{project.name(settings)}/{Path(project.product).name}"
    return kept(cache or cache_folder(), name, make)


def kept(cache: Path, name: str, make: Callable[[Path], Path]) -> Path:
    """The file `name` below `cache`; unless it is there, `make` builds it in a scratch folder."""
    path = cache / name
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        made = make(Path(scratch))
        path.parent.mkdir(exist_ok=True)
        # Renamed, so that a second process never sees half a file.
        made.replace(path)
    return path


def find_cmake(fix: str) -> str:
    """The command.

    Raises:
        OnekvError: there is none; `fix` says what to do.
    """
    # pip puts it beside this interpreter, which need not be on the path.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=folders)
    if cmake is None:
        raise OnekvError("CMake is missing", fix)
    return cmake


def cache_folder() -> Path:
    """Where what was built on demand is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onekv"


def _run(project: Project, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise OnekvError(f"{project.target} cannot be built:\n{last}", project.fix)
