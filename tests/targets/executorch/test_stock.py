"""`--ops stock`: the same model from operators that every ExecuTorch runtime has."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, Ops, Target
from onekv.export.plan import cache_per_token, plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.targets import check_target, target_rules
from onekv.quantize.numbers import Number
from onekv.runtime.executorch_program import read_program
from tests.specs import LLAMA, SPECS
from tests.targets.executorch.conftest import CONTEXT, Lowered
from tests.targets.executorch.test_parity import relative_l2

SHARED = replace(LLAMA["llama Q-GQA-2"], layers=1)
LEARNED = replace(SPECS["Q-GQA-2"], layers=1)
BASELINE = replace(LLAMA["llama GQA-2"], layers=1)
FP32, INT8 = Number.FP32, Number.INT8


@pytest.mark.parametrize(
    ("spec", "cache", "limit"),
    [
        pytest.param(SHARED, FP32, 1e-5, id="one tensor"),
        pytest.param(LEARNED, INT8, 2e-2, id="one tensor, int8"),
        pytest.param(SHARED, INT8, 2e-2, id="int8, turned", marks=pytest.mark.slow),
        pytest.param(BASELINE, FP32, 1e-5, id="two tensors", marks=pytest.mark.slow),
    ],
)
def test_stock_operators_compute_the_model_with_one_cache(
    lowered: Lowered, spec: ModelSpec, cache: Number, limit: float
) -> None:
    assert relative_l2(lowered, spec, cache=cache, ops=Ops.STOCK) <= limit
    program = read_program(lowered(spec, cache=cache, ops=Ops.STOCK))
    assert program.cache == cache_per_token(spec, cache) * CONTEXT
    writes = spec.sharing.cached_tensors * (1 if cache is FP32 else 2)
    assert program.operators["llama::update_cache.out"] == spec.layers * writes
    assert not {"aten::copy_", "aten::copy"} & {called.split(".")[0] for called in program.portable}
    assert all(name.startswith("llama::") for name in program.operators)


def test_rows_that_need_no_turning_are_read_as_int8_in_both_roles(lowered: Lowered) -> None:
    program = read_program(lowered(LEARNED, cache=INT8, ops=Ops.STOCK))
    assert program.operators["llama::custom_quantized_sdpa.out"] == 1


def test_the_price_is_told_before_the_export() -> None:
    options = resolve_options(SHARED, Target.EXECUTORCH, Asked(context=CONTEXT, ops=Ops.STOCK))
    (note,) = target_rules(Target.EXECUTORCH).notes(
        SHARED, options, plan_weights_of(SHARED, options)
    )
    assert f"{4 * SHARED.kv_heads * SHARED.head_dim * CONTEXT} bytes of activations" in note


@pytest.mark.slow
def test_turned_keys_are_the_price_in_the_activation_arena(lowered: Lowered) -> None:
    row = 4 * SHARED.kv_heads * SHARED.head_dim * CONTEXT
    stock = read_program(lowered(SHARED, ops=Ops.STOCK))
    assert stock.activations >= read_program(lowered(SHARED)).activations + row // 2


def test_a_runtime_without_our_library_runs_it(lowered: Lowered) -> None:
    path = lowered(SHARED, ops=Ops.STOCK)
    program = f"""
import torch
import executorch.extension.llm.custom_ops.custom_ops
from executorch.extension.pybindings import _C
program = _C._load_program({str(path)!r})
forward = program.load_method("forward")
print(forward([torch.tensor([[1, 2, 3]]), torch.tensor([0])])[0].shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"[1, 3, 97]" in done.stdout


@pytest.mark.parametrize(
    ("spec", "cache", "said"),
    [(SHARED, Number.INT4, "cache int4"), (LLAMA["llama Q-GQA-2, window"], FP32, "window of 5")],
)
def test_what_stock_operators_cannot_do_is_refused(
    spec: ModelSpec, cache: Number, said: str
) -> None:
    options = resolve_options(
        spec, Target.EXECUTORCH, Asked(context=CONTEXT, cache=cache, ops=Ops.STOCK)
    )
    with pytest.raises(UsageError, match=said):
        check_target(spec, options)
