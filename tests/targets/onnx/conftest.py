"""One exported file per model, shared by the tests that only look at it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target
from onekv.export.targets import LowerRequest
from onekv.export.targets.onnx.lower import lower
from onekv.quantize.numbers import Number
from tests.specs import tiny_decoder

CONTEXT = 48

Lowered = Callable[..., Path]


def lower_tiny(
    folder: Path, spec: ModelSpec, weights: Number = Number.FP32, cache: Number | None = None
) -> Path:
    """The seeded model of `spec` as an ONNX file in `folder`."""
    options = ExportOptions(Target.ONNX, CONTEXT, weights, cache or weights)
    request = LowerRequest(spec, options, tiny_decoder(spec).state_dict, (1,), None)
    return folder / lower(request, folder)


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Gives the file of a model and number format, exported once."""

    @functools.cache
    def get(spec: ModelSpec, weights: Number = Number.FP32, cache: Number | None = None) -> Path:
        return lower_tiny(tmp_path_factory.mktemp("onnx"), spec, weights, cache)

    return get
