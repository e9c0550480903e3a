"""Profiles for GPUs: the structure of files that cannot run here, and the graph that they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onekv.errors import BundleError, UsageError
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, ExportOptions, Ops, Profile, Target
from onekv.export.resolve import resolve_options
from onekv.export.targets import check_target
from onekv.export.targets.executorch.delegates import caches
from onekv.export.targets.executorch.graph import CachedDecoder
from onekv.export.targets.executorch.weights import exchange_weights
from onekv.export.verify import difference
from onekv.quantize.numbers import Number
from onekv.runtime.executorch_program import read_program
from onekv.runtime.executorch_session import ExecutorchSession
from tests.specs import LLAMA, SPECS, tiny_decoder, token_ids
from tests.targets.executorch.conftest import CONTEXT, Lowered, slow

SHARED = replace(LLAMA["llama Q-GQA-2"], layers=1)
BACKENDS = {Profile.GPU: "VulkanBackend", Profile.APPLE: "CoreMLBackend"}


@pytest.mark.parametrize("profile", [Profile.GPU, *slow(Profile.APPLE)])
def test_one_delegate_takes_the_model_and_its_cache(lowered: Lowered, profile: Profile) -> None:
    program = read_program(lowered(SHARED, profile=profile, ops=Ops.STOCK))
    assert program.delegates == {BACKENDS[profile]: 1}
    # Nothing is left outside, and no arena of ours holds the cache: it is the delegate's own.
    assert program.operators == program.portable == {}
    assert program.cache == 0


@pytest.mark.slow
def test_our_operator_stays_outside_of_the_gpu_as_the_fall_back(lowered: Lowered) -> None:
    program = read_program(lowered(SHARED, profile=Profile.GPU))
    assert program.operators == {"onekv::attend.out": 1}
    assert program.delegates["VulkanBackend"] >= 1
    assert program.cache == 4 * CONTEXT * SHARED.kv_heads * SHARED.head_dim


@pytest.mark.parametrize("profile", BACKENDS)
@pytest.mark.parametrize(
    "spec",
    [SHARED, LLAMA["llama Q-GQA-2, window"], LLAMA["llama GQA-2"], SPECS["Q-K=V"]],
    ids=lambda spec: spec.variant,
)
def test_the_graph_that_a_delegate_is_given_computes_the_model(
    spec: ModelSpec, profile: Profile
) -> None:
    options = ExportOptions(Target.EXECUTORCH, CONTEXT, profile=profile, ops=Ops.STOCK)
    tokens = token_ids(spec, CONTEXT)
    want = DecoderSession(tiny_decoder(spec), CONTEXT).step(tokens[0].tolist())
    decoder = tiny_decoder(spec)
    model = CachedDecoder(decoder, exchange_weights(decoder, {}), caches(spec, options)).eval()
    rows, at = [], 0
    for size in (30, 1, 1, 15, 1):
        with torch.inference_mode():
            rows.append(model(tokens[:, at : at + size], torch.tensor([at]))[0].numpy())
        at += size
    assert difference(np.concatenate(rows), want).relative_l2 <= 1e-5


def test_running_such_a_file_here_names_what_is_missing(lowered: Lowered) -> None:
    with pytest.raises(BundleError, match=r"cannot load model\.pte") as caught:
        ExecutorchSession(lowered(SHARED, profile=Profile.GPU, ops=Ops.STOCK), CONTEXT)
    assert "not in this runtime" in str(caught.value.fix)


def test_a_gpu_takes_stock_operators_unless_ours_are_asked_for() -> None:
    for profile in BACKENDS:
        asked = Asked(context=CONTEXT, profile=profile)
        assert resolve_options(SHARED, Target.EXECUTORCH, asked).ops is Ops.STOCK
    asked = Asked(context=CONTEXT, profile=Profile.APPLE, ops=Ops.ONEKV)
    with pytest.raises(UsageError, match="ops onekv"):
        resolve_options(SHARED, Target.EXECUTORCH, asked)


def test_integers_on_a_gpu_are_refused() -> None:
    asked = Asked(context=CONTEXT, profile=Profile.GPU, weights=Number.INT4)
    options = resolve_options(SHARED, Target.EXECUTORCH, asked)
    with pytest.raises(UsageError, match="--profile cpu"):
        check_target(SHARED, options)
