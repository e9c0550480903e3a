"""onekv's library in ONNX Runtime: the definition's numbers, in place, and errors as statuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from onekv.runtime.rows import RowFormat
from tests.kernel.calls import Call, Inputs, calls, relative_error
from tests.kernel.test_kernel import ACTIVATION_STEP, tolerance
from tests.targets.onnx.nodes import CACHES, feeds_of, present, run_node

FORMATS = pytest.mark.parametrize(
    "form", [RowFormat.FP32, RowFormat.FP16, RowFormat.INT8, RowFormat.INT4], ids=str
)
ACTIVATIONS = st.sampled_from([torch.float32, torch.float16])
ROPE = st.sampled_from(["none", "full", "partial", "offset"])
CALL = Call(parts=2, rope="full", new_tokens=3)


def agrees(call: Call, form: RowFormat) -> bool:
    inputs = Inputs(call, form)
    expected = inputs.expected()
    limit = tolerance(form) + ACTIVATION_STEP[call.activations]
    return relative_error(run_node(inputs)["out"], expected) < limit


@FORMATS
@given(call=calls(parts=2, two_tensors=False), activations=ACTIVATIONS, rope=ROPE)
def test_attend_computes_the_definition_on_two_half_rows(
    form: RowFormat, call: Call, activations: torch.dtype, rope: str
) -> None:
    assume(call.head_dim % 16 == 0)
    assert agrees(replace(call, activations=activations, rope=rope), form)


@FORMATS
@given(call=calls(parts=1, two_tensors=True, rope="none", gain=False), activations=ACTIVATIONS)
def test_attend_kv_computes_the_definition(
    form: RowFormat, call: Call, activations: torch.dtype
) -> None:
    assert agrees(replace(call, activations=activations), form)


@FORMATS
@pytest.mark.parametrize("call", [CALL, Call(two_tensors=True)], ids=["Attend", "AttendKV"])
def test_a_cache_that_is_not_shared_is_copied_and_left_alone(form: RowFormat, call: Call) -> None:
    copied, appended = Inputs(call, form), Inputs(call, form)
    before = {name: t.clone() for name, t in feeds_of(copied).items() if name in CACHES}
    results = run_node(copied, in_place=False)
    assert torch.equal(results["out"], run_node(appended)["out"])
    for name, old in before.items():
        assert same_bytes(feeds_of(copied)[name], old)
        assert same_bytes(results[present(name)], feeds_of(appended)[name])
        assert not same_bytes(results[present(name)], old)


def same_bytes(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


BAD = {
    "a position past the cache": ({"pos": torch.tensor([24])}, "do not fit into the cache"),
    "a negative position": ({"pos": torch.tensor([-1])}, "position or the window is negative"),
    "no token": ({"q": torch.zeros(1, 0, 4, 64), "c": torch.zeros(1, 0, 2, 64)}, "out of range"),
    "queries of another head_dim": ({"q": torch.zeros(1, 3, 4, 32)}, "differ in batch, tokens"),
    "heads that do not divide": ({"q": torch.zeros(1, 3, 3, 64)}, "cannot be split"),
    "a batch that the cache lacks": (
        {"q": torch.zeros(2, 3, 4, 64), "c": torch.zeros(2, 3, 2, 64)},
        "another batch",
    ),
    "halves of two lengths": ({"past_high": torch.zeros(1, 2, 9, 32)}, "cache tensors differ"),
    "rows of no format": (
        {"past_low": torch.zeros(1, 2, 26, 31), "past_high": torch.zeros(1, 2, 26, 31)},
        "no row format has 31 per row",
    ),
    "two positions": ({"pos": torch.tensor([1, 2])}, "pos is one number"),
    "a short table": (
        {"cos": torch.zeros(22, 32), "sin": torch.zeros(22, 32)},
        "tables end before the last position",
    ),
    "a table of another head_dim": (
        {"cos": torch.zeros(90, 16), "sin": torch.zeros(90, 16)},
        "rotary tables are not",
    ),
    "queries that are not finite": ({"q": torch.full((1, 3, 4, 64), torch.inf)}, "not finite"),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_call_is_an_error_that_leaves_the_cache_alone(
    changes: dict[str, Tensor], words: str
) -> None:
    inputs = Inputs(CALL, RowFormat.FP32)
    before = inputs.clone_caches()[0]
    with pytest.raises(Exception, match=f"onekv Attend: .*{words}"):
        run_node(inputs, **changes)
    assert all(same_bytes(old, new) for old, new in zip(before, inputs.caches[0]))
    assert agrees(CALL, RowFormat.FP32)


def test_one_buffer_for_both_halves_is_refused() -> None:
    inputs = Inputs(CALL, RowFormat.FP32)
    low = feeds_of(inputs)["past_low"]
    with pytest.raises(Exception, match="the two cache tensors share a buffer"):
        run_node(inputs, past_high=low)
