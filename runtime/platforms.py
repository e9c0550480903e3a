"""onekv's native library for the platform that a bundle is to run on."""

from __future__ import annotations

import enum
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from onekv.errors import OnekvError
from onekv.runtime import cmake, native


class Platform(enum.StrEnum):
    """An operating system and a processor, by the name that `--platform` takes."""

    LINUX_X86_64 = "linux-x86_64"
    LINUX_AARCH64 = "linux-aarch64"
    ANDROID_ARM64 = "android-arm64"


@dataclass(frozen=True)
class _Tools:
    """How a library is built for a platform that is not this one."""

    settings: tuple[str, ...]
    fix: str


ANDROID_API = 26
"""The oldest Android whose C library has what the kernel calls."""

_LINUX_COMPILERS = {
    Platform.LINUX_X86_64: "x86_64-linux-gnu-g++",
    Platform.LINUX_AARCH64: "aarch64-linux-gnu-g++",
}


def host_platform() -> Platform | None:
    """The platform of this process; None when it is not one that onekv names."""
    name = f"{sys.platform}-{platform.machine()}"
    return next((known for known in Platform if known == name), None)


def check_platform(wanted: Platform) -> None:
    """Refuse a platform that no library can be made for here, before any work.

    Raises:
        OnekvError: its compiler, or CMake, is missing.
    """
    if wanted is host_platform():
        native.require_library(native.ONNX)
    else:
        cmake.find_cmake(_tools(wanted).fix)


def onnx_library(wanted: Platform, cache: Path | None = None) -> Path:
    """The custom-op library for a platform: the installed one, or one that is cross-built.

    A library is built once and kept in `cache`, or in the user's folder for caches.

    Raises:
        OnekvError: its compiler, or CMake, is missing, or the build fails.
    """
    if wanted is host_platform():
        return native.require_library(native.ONNX)
    tools, sources = _tools(wanted), native.source_folder()
    project = cmake.Project(
        folder=sources,
        sources=tuple(
            sources / name
            for name in ("CMakeLists.txt", "kernel", "adapters/CMakeLists.txt", "adapters/onnx")
        ),
        target="onekv_onnx",
        product=f"adapters/onnx/{native.ONNX}",
        fix=tools.fix,
    )
    return cmake.build(project, tools.settings, cache)


def cmake_settings(wanted: Platform) -> tuple[str, ...]:
    """What CMake is told to build for a platform that is not this one.

    Raises:
        OnekvError: its compiler is missing.
    """
    return _tools(wanted).settings


def _tools(wanted: Platform) -> _Tools:
    return _android_tools() if wanted is Platform.ANDROID_ARM64 else _linux_tools(wanted)


def _linux_tools(wanted: Platform) -> _Tools:
    compiler, processor = _LINUX_COMPILERS[wanted], wanted.removeprefix("linux-")
    fix = f"Install it and CMake: apt-get install cmake g++-{processor.replace('_', '-')}-linux-gnu"
    if shutil.which(compiler) is None:
        raise OnekvError(f"{compiler} is missing: it builds the library for {wanted}", fix)
    settings = (
        "-DCMAKE_SYSTEM_NAME=Linux",
        f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
    )
    return _Tools(settings, fix)


def _android_tools() -> _Tools:
    fix = (
        "Install the NDK (r27 or newer) and CMake, and set ANDROID_NDK to the NDK's folder: "
        "developer.android.com/ndk/downloads"
    )
    folder = os.environ.get("ANDROID_NDK")
    if not folder:
        raise OnekvError(
            f"ANDROID_NDK is not set: it builds the library for {Platform.ANDROID_ARM64}", fix
        )
    file = Path(folder) / "build/cmake/android.toolchain.cmake"
    if not file.is_file():
        raise OnekvError(f"ANDROID_NDK={folder} holds no {file.name}", fix)
    settings = (
        f"-DCMAKE_TOOLCHAIN_FILE={file}",
        "-DANDROID_ABI=arm64-v8a",
        f"-DANDROID_PLATFORM=android-{ANDROID_API}",
        "-DANDROID_STL=c++_static",
        "-DANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON",
    )
    return _Tools(settings, fix)
