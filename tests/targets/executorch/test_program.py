"""What is in the file: one arena that is the cache, one delegate between two attentions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onekv.export.model.spec import ModelSpec
from onekv.export.plan import cache_per_token
from onekv.quantize.numbers import Number
from onekv.runtime.executorch_program import read_program
from onekv.runtime.executorch_session import ExecutorchSession
from tests.specs import LLAMA, SPECS
from tests.targets.executorch.conftest import CONTEXT, Lowered, slow

SHARED, BASELINE = LLAMA["llama Q-GQA-2"], replace(LLAMA["llama GQA-2"], layers=1)
PAPER = replace(SPECS["Q-GQA-2"], layers=1)
# Positions and tokens are looked up, and the position is counted, outside of delegates.
LOOKUPS = {"aten::embedding.out", "aten::arange.start_out", "aten::add.out"}
TABLES = {"aten::unsqueeze_copy.out", "aten::cat.out", "aten::sym_size.int"}


@pytest.mark.parametrize("spec", [SHARED, BASELINE, PAPER], ids=lambda spec: spec.variant)
def test_the_third_arena_is_the_cache_to_the_byte(lowered: Lowered, spec: ModelSpec) -> None:
    program = read_program(lowered(spec))
    assert program.cache == cache_per_token(spec, Number.FP32) * CONTEXT
    assert ExecutorchSession(lowered(spec), CONTEXT).cache_bytes == program.cache


@pytest.mark.parametrize("cache", [Number.INT4, *slow(Number.FP16, Number.INT8)])
def test_the_arena_follows_the_cache_format(lowered: Lowered, cache: Number) -> None:
    spec = replace(SHARED, layers=1)
    assert read_program(lowered(spec, cache=cache)).cache == cache_per_token(spec, cache) * CONTEXT


@pytest.mark.parametrize("spec", [SHARED, BASELINE, PAPER], ids=lambda spec: spec.variant)
def test_each_layer_is_one_call_of_the_operator_and_nothing_is_copied(
    lowered: Lowered, spec: ModelSpec
) -> None:
    program = read_program(lowered(spec))
    name = "attend" if spec.sharing.one_tensor else "attend_kv"
    turned = 0 if spec.rope is None else 1 if spec.sharing.one_tensor else 2
    calls = {f"onekv::{name}.out": spec.layers, "onekv::rotate.out": turned * spec.layers}
    assert program.operators == {called: count for called, count in calls.items() if count}
    assert not [
        called for called in program.portable if "copy_" in called and "_copy" not in called
    ]
    assert set(program.portable) <= LOOKUPS | TABLES


@pytest.mark.parametrize("spec", [SHARED, PAPER], ids=lambda spec: spec.variant)
def test_one_delegate_lies_between_two_attentions(lowered: Lowered, spec: ModelSpec) -> None:
    assert read_program(lowered(spec)).delegates["XnnpackBackend"] <= spec.layers + 2
