"""onekv's library for ONNX Runtime inside a bundle, for the platforms that were asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.runtime.platforms import Platform, check_platform, host_platform, onnx_library


def check_libraries(spec: ModelSpec, platforms: Sequence[Platform]) -> None:
    """Refuse, before any work, libraries that cannot be made or that the model cannot use.

    Raises:
        UsageError: the kernel does not have the model's head_dim.
        OnekvError: a tool that builds one is missing.
    """
    multiple = 16 if spec.sharing.one_tensor else 8
    if platforms and (spec.head_dim % multiple or spec.head_dim > 512):
        raise UsageError(
            f"head_dim {spec.head_dim}: the kernel takes multiples of {multiple} up to 512",
            "Leave --platform out: the file's own operators run the model.",
        )
    for platform in platforms:
        check_platform(platform)


def ship_libraries(platforms: Sequence[Platform], folder: Path) -> None:
    """Put each platform's library at `library_name` in a bundle's folder."""
    for platform in platforms:
        library = onnx_library(platform)
        place = folder / "lib" / platform / library.name
        place.parent.mkdir(parents=True)
        shutil.copyfile(library, place)


def library_name(platforms: Sequence[Platform], folder: Path) -> str | None:
    """The bundle's library that a runtime is told of: this machine's, or else the first.

    A configuration has room for one.
    """
    if not platforms:
        return None
    here = [platform for platform in platforms if platform is host_platform()]
    (library,) = (folder / "lib" / (here or platforms)[0]).iterdir()
    return library.relative_to(folder).as_posix()
