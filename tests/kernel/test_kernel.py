"""The kernel against the definition in float64: every shape, row format and instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from onekv.runtime import kernel_library as kernel
from onekv.runtime.rows import RowFormat
from tests.kernel.calls import Call, Inputs, calls, join, relative_error

# Relative L2 error of the arithmetic alone: the rows that the definition sees are rounded too.
TOLERANCE = {RowFormat.FP32: 2e-6, RowFormat.FP16: 4e-6, RowFormat.BF16: 6e-3,
             RowFormat.INT8: 4e-3, RowFormat.INT4: 2e-2}  # fmt: skip
ACTIVATION_STEP = {torch.float32: 0.0, torch.float16: 5e-4, torch.bfloat16: 4e-3}


every_isa = pytest.mark.parametrize(
    "isa", kernel.supported_isas().values(), ids=kernel.supported_isas().keys()
)


@every_isa
@pytest.mark.parametrize("form", RowFormat, ids=str)
@given(call=calls())
def test_kernel_computes_the_definition(isa: int, form: RowFormat, call: Call) -> None:
    inputs = Inputs(call, form)
    expected = inputs.expected()
    limit = TOLERANCE[form] + ACTIVATION_STEP[call.activations]
    assert relative_error(inputs.run(isa), expected) < limit


@pytest.mark.parametrize("form", RowFormat, ids=str)
@given(call=calls(position=9, batch=2, new_tokens=5))
def test_new_rows_are_stored_as_the_codec_defines(form: RowFormat, call: Call) -> None:
    inputs = Inputs(call, form)
    before, stored = inputs.clone_caches(), inputs.rounded(inputs.c)
    inputs.run()
    slots = torch.arange(call.position, call.position + call.new_tokens) % call.length
    other = torch.ones(call.length, dtype=torch.bool).index_fill(0, slots, False)
    written = join([part[:, :, slots] for part in inputs.caches[0]], form)
    assert torch.equal(written, stored.transpose(1, 2))
    for old, new in zip(before[0], inputs.caches[0]):
        assert torch.equal(old[:, :, other].view(torch.uint8), new[:, :, other].view(torch.uint8))
