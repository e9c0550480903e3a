"""The runner and its libraries for a phone: built with the NDK on first use, and kept.

Neither runtime ships what a shell on a phone can load: ONNX Runtime's library is inside its
Android package, ExecuTorch's is built from source with the NDK. Both are named by the
environment; docs/android.md says how to get them. Not run here: there is no NDK in the
registries; the same steps with a Linux cross compiler are what the tests run.
"""

from __future__ import annotations

import os
from pathlib import Path

from onekv.bench.devices.android import Programs
from onekv.errors import UsageError
from onekv.export.bundle import Bundle
from onekv.export.options import Ops, Target
from onekv.runtime.platforms import Platform, cmake_settings, onnx_library
from onekv.runtime.runner_build import Toolchain, build_runner

ONNXRUNTIME = "ONEKV_ANDROID_ONNXRUNTIME"
"""The phone's libonnxruntime.so: jni/arm64-v8a in the package onnxruntime-android."""

EXECUTORCH = "ONEKV_ANDROID_EXECUTORCH"
"""The folder of ExecuTorch's CMake files for Android, share/cmake below it."""


def phone_programs(bundle: Bundle, platform: Platform = Platform.ANDROID_ARM64) -> Programs:
    """What a bundle needs on a phone.

    Raises:
        UsageError: the environment does not name the phone's runtime.
        OnekvError: the compiler is missing, or the build fails.
    """
    options = bundle.manifest.options
    settings = cmake_settings(platform)
    if options.target is Target.ONNX:
        runtime = _named(ONNXRUNTIME, "libonnxruntime.so of the package onnxruntime-android")
        runner = build_runner("onnx", toolchain=Toolchain(settings))
        operators = () if options.ops is Ops.STOCK else (onnx_library(platform),)
        return Programs(runner, runtime, operators)
    if options.target is Target.EXECUTORCH:
        folder = _named(EXECUTORCH, "the folder of ExecuTorch built for Android")
        runner = build_runner("executorch", toolchain=Toolchain(settings, folder))
        # onekv's operators are in a runner for another machine than this.
        return Programs(runner, libraries=tuple(folder.glob("lib/*.so")))
    raise UsageError(
        f"{options.target} bundles do not run on Android", "Export with --to onnx or executorch."
    )


def _named(variable: str, what: str) -> Path:
    path = os.environ.get(variable)
    if not path or not Path(path).exists():
        raise UsageError(
            f"{variable} does not name {what}", "docs/android.md says where to get it."
        )
    return Path(path)
