"""The tests of the node again, on a library that watches every access."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onekv.runtime import native
from tests.targets.onnx import test_nodes
from tests.targets.onnx.nodes import LIBRARY_VARIABLE


@pytest.mark.slow
def test_no_sanitizer_objects_to_the_adapter(tmp_path: Path) -> None:
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -O1"
    subprocess.run(
        ["cmake", "-S", native.source_folder(), "-B", tmp_path, "-DCMAKE_BUILD_TYPE=None",
         f"-DCMAKE_CXX_FLAGS={flags}"],
        check=True, capture_output=True,
    )  # fmt: skip
    build = ["cmake", "--build", tmp_path, "-j", "2", "--target", "onekv_onnx"]
    subprocess.run(build, check=True, capture_output=True)
    environment = {
        # The second, because the first looks for the C++ library's `throw` as it starts.
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        LIBRARY_VARIABLE: str(tmp_path / "adapters/onnx" / native.ONNX),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test_nodes.__file__],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def runtime(name: str) -> str:
    """Where the compiler keeps a sanitizer's library."""
    found = subprocess.run(
        ["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()
