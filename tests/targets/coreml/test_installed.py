"""Tells in the test report when the tests of Core ML did not run."""

import pytest


def test_coremltools_is_installed() -> None:
    pytest.importorskip("coremltools", reason="coremltools is missing: Core ML is not tested")
