"""The native libraries of this installation, and the sources that they are built from."""

from __future__ import annotations

from pathlib import Path

import onekv.runtime
from onekv.errors import OnekvError

KERNEL = "libonekv_kernel.so"
"""The kernel alone, behind kernel/attend.h."""

ONNX = "libonekv_onnx.so"
"""The kernel as ONNX Runtime's custom operators."""


def find_library(name: str) -> Path | None:
    """Where an installed library lies; None when this installation has none of that name."""
    return _find(f"_lib/{name}")


def require_library(name: str) -> Path:
    """As `find_library`.

    Raises:
        OnekvError: this installation has none.
    """
    path = find_library(name)
    if path is None:
        raise OnekvError(f"{name} is not installed", "Install onekv again: `pip install .`")
    return path


def source_folder() -> Path:
    """The folder of the C++ project, which an installed package holds too."""
    project = _find("CMakeLists.txt")
    if project is None:
        raise OnekvError(
            "the C++ sources are not installed", "Install onekv again: `pip install .`"
        )
    return project.parent


def _find(name: str) -> Path | None:
    # An editable install gives the package two folders: the sources, and what was built.
    for folder in onekv.runtime.__path__:
        path = Path(folder) / name
        if path.is_file():
            return path
    return None
