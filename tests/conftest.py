"""Fixtures that all tests share; the models themselves are in `tests/specs.py`."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import torch

from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Target
from onekv.export.pipeline import plan_export, run_export
from onekv.export.resolve import resolve_options
from tests.builders.sample import write_sample
from tests.specs import ONE_TENSOR, PAPER, SPECS

# The machines that run this differ in speed: a slow example is no failure.
hypothesis.settings.register_profile("onekv", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("onekv")
# The models are tiny: a second thread only waits, most of all beside another process.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every tiny model in turn."""
    return request.param


@pytest.fixture(params=PAPER.values(), ids=PAPER.keys())
def paper_variant(request: pytest.FixtureRequest) -> ModelSpec:
    """The paper's eight variants in turn."""
    return request.param


@pytest.fixture(params=ONE_TENSOR.values(), ids=ONE_TENSOR.keys())
def one_tensor_spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every tiny model that caches one tensor, in turn."""
    return request.param


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Q-K=V model with a tokenizer, as a Hugging Face folder."""
    return write_sample(tmp_path_factory.mktemp("models") / "tiny-random")


@pytest.fixture(scope="session")
def sample_bundle(sample_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX bundle of `sample_model`. Copy it before changing it."""
    checkpoint = open_checkpoint(sample_model)
    options = resolve_options(checkpoint.spec, Target.ONNX)
    plan = plan_export(checkpoint, options, None, need_tokenizer=True)
    return run_export(plan, tmp_path_factory.mktemp("bundles") / "tiny-random-onnx").path
