"""One exported program per model and options, shared by the tests that only look at it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("executorch")

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target
from onekv.export.targets import LowerRequest
from onekv.export.targets.executorch.lower import lower
from tests.specs import tiny_decoder

CONTEXT = 48

Lowered = Callable[..., Path]


def lower_tiny(folder: Path, spec: ModelSpec, **changes: object) -> Path:
    """The seeded model of `spec` as a program in `folder`; `changes` are fields of the options."""
    options = ExportOptions(Target.EXECUTORCH, CONTEXT, **changes)  # type: ignore[arg-type]
    request = LowerRequest(spec, options, tiny_decoder(spec).state_dict, (1,), None)
    return folder / lower(request, folder)


def slow(*values: object) -> list[Any]:
    """Parameters whose tests are slow ones: each means one more export."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Gives the program of a model and options, exported once: each takes seconds."""

    @functools.cache
    def get(spec: ModelSpec, **changes: object) -> Path:
        return lower_tiny(tmp_path_factory.mktemp("executorch"), spec, **changes)

    return get
