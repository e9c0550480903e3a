"""One package per model and form, shared by the tests; skipped where coremltools is missing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Profile, Target
from onekv.export.plan import integer_rules, plan_weights_of
from onekv.export.targets import LowerRequest
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight, quantise_weights
from tests.specs import tiny_decoder

CONTEXT = 32

Lowered = Callable[..., Path]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without coremltools nothing here can be imported; `test_installed.py` tells so."""
    if _installed() or collection_path.name in ("test_installed.py", "conftest.py"):
        return None
    return collection_path.name.startswith("test_") or None


def _installed() -> bool:
    try:
        import coremltools  # noqa: F401
    except ImportError:
        return False
    return True


def options(weights: Number = Number.FP16, profile: Profile = Profile.GPU) -> ExportOptions:
    return ExportOptions(Target.COREML, CONTEXT, weights, Number.FP16, profile)


def quantised(spec: ModelSpec, chosen: ExportOptions) -> dict[str, QuantisedWeight]:
    """The matrices of the seeded model of `spec` that the pipeline rounds."""
    if integer_rules(chosen).own_tool:
        return {}
    plan = plan_weights_of(spec, chosen)
    return quantise_weights(tiny_decoder(spec).state_dict(), plan, lambda done, total: None)


def lower_tiny(folder: Path, spec: ModelSpec, chosen: ExportOptions) -> Path:
    """The seeded model of `spec` as a package in `folder`."""
    from onekv.export.targets.coreml.lower import lower

    weights = tiny_decoder(spec).state_dict
    request = LowerRequest(spec, chosen, weights, (1,), None, quantised(spec, chosen))
    return folder / lower(request, folder, lambda done, total: None)


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Gives the package of a model and its options, exported once."""

    @functools.cache
    def get(spec: ModelSpec, chosen: ExportOptions) -> Path:
        return lower_tiny(tmp_path_factory.mktemp("coreml"), spec, chosen)

    return get
