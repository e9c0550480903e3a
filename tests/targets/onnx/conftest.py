"""One exported file per model, shared by the tests that only look at it."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target
from onekv.export.plan import plan_weights_of
from onekv.export.targets import LowerRequest
from onekv.export.targets.onnx.lower import lower
from onekv.quantize.numbers import ROUNDED, Number
from onekv.quantize.weights import QuantisedWeight, quantise_weights
from tests.specs import tiny_decoder

CONTEXT = 48

Lowered = Callable[..., Path]


def lower_tiny(
    folder: Path, spec: ModelSpec, weights: Number = Number.FP32, cache: Number | None = None
) -> Path:
    """The seeded model of `spec` as an ONNX file in `folder`."""
    rounded = weights in ROUNDED
    options = ExportOptions(
        Target.ONNX, CONTEXT, weights, cache or (Number.FP32 if rounded else weights)
    )
    load = tiny_decoder(spec).state_dict
    quantised = tiny_integers(spec, weights) if rounded else {}
    request = LowerRequest(spec, options, load, (1,), None, quantised)
    return folder / lower(request, folder)


def tiny_integers(spec: ModelSpec, weights: Number) -> dict[str, QuantisedWeight]:
    """The rounded weights of the seeded model of `spec`."""
    plan = plan_weights_of(spec, ExportOptions(Target.ONNX, CONTEXT, weights))
    return quantise_weights(tiny_decoder(spec).state_dict(), plan, lambda *_: None)


def without_body(path: Path, folder: Path) -> Path:
    """A copy of a file that holds no function to fall back on: only a library can run it."""
    folder.mkdir(exist_ok=True)
    for file in path.parent.iterdir():
        shutil.copyfile(file, folder / file.name)
    model = onnx.load(path, load_external_data=False)
    del model.functions[:]
    onnx.save(model, folder / path.name)
    return folder / path.name


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Gives the file of a model and number format, exported once."""

    @functools.cache
    def get(spec: ModelSpec, weights: Number = Number.FP32, cache: Number | None = None) -> Path:
        return lower_tiny(tmp_path_factory.mktemp("onnx"), spec, weights, cache)

    return get
