"""Runners, built once and kept in the user's cache, and small programs for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onekv.runtime.runner_build import build_runner, onnx_runtime_library

Program = list[str]


@pytest.fixture(scope="session")
def onnx_runner() -> Program:
    """The runner for ONNX Runtime, with the installed runtime's library."""
    return [str(build_runner("onnx")), "--runtime", str(onnx_runtime_library())]


@pytest.fixture(scope="session")
def executorch_runner() -> Program:
    """The runner for ExecuTorch."""
    pytest.importorskip("executorch")
    return [str(build_runner("executorch"))]


@pytest.fixture(scope="session")
def tiny_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pte of `tiny_module.Tiny`, its steps of at most 16 tokens, its context of 64."""
    pytest.importorskip("executorch")
    from tests.runner.tiny_module import write_program

    return write_program(tmp_path_factory.mktemp("programs") / "tiny.pte")
