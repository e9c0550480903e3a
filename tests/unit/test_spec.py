"""The model's specification: names, derived sizes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from onekv.errors import CheckpointError
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from tests.specs import LLAMA_SPEC, PAPER, PAPER_SPEC, tiny_decoder


@pytest.mark.parametrize("name", PAPER)
def test_a_variant_has_the_papers_name(name: str) -> None:
    assert PAPER[name].variant == name


@pytest.mark.parametrize(
    ("sharing", "one_tensor", "query_is_key", "cached"),
    [
        ("qkv", False, False, 2),
        ("q-k=v", True, False, 1),
        ("q=k-v", False, True, 2),
        ("q=k=v", True, True, 1),
    ],
)
def test_sharing_says_what_is_cached(
    sharing: str, one_tensor: bool, query_is_key: bool, cached: int
) -> None:
    which = Sharing(sharing)
    assert (which.one_tensor, which.query_is_key) == (one_tensor, query_is_key)
    assert which.cached_tensors == cached


def test_parameter_shapes_are_the_decoders(spec: ModelSpec) -> None:
    state = tiny_decoder(spec).state_dict()
    assert parameter_shapes(spec) == {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"kv_heads": 3}, "4 query heads cannot be split over 3 kv heads"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"sharing": Sharing.ALL, "kv_heads": 2}, "as many kv heads as query heads"),
        ({"sharing": Sharing.Q_IS_K, "kv_heads": 1}, "as many kv heads as query heads"),
        ({"window": -1}, "window is -1"),
    ],
)
def test_a_shape_that_no_model_has_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        replace(PAPER_SPEC, **change)  # type: ignore[arg-type]


def test_a_twin_differs_in_its_sharing_alone() -> None:
    twin = LLAMA_SPEC.with_sharing(Sharing.K_IS_V)
    assert twin.sharing is Sharing.K_IS_V
    assert twin.with_sharing(LLAMA_SPEC.sharing) == LLAMA_SPEC


def test_a_specification_is_a_value() -> None:
    assert len({LLAMA_SPEC, replace(LLAMA_SPEC), PAPER_SPEC}) == 2
    with pytest.raises(FrozenInstanceError):
        LLAMA_SPEC.layers = 3  # type: ignore[misc]


def test_reading_a_specification_imports_no_framework() -> None:
    code = (
        "import sys, onekv.export.model.spec; print({'torch', 'transformers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
