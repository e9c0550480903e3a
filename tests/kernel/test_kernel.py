"""The kernel against the definition in float64: every shape, row format and instruction set."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import given

from onekv.runtime import kernel_library as kernel
from onekv.runtime.rows import RowFormat
from tests.kernel.calls import Call, Inputs, calls, join, relative_error

# Relative L2 error of the arithmetic alone: the rows that the definition sees are rounded too.
TOLERANCE = {RowFormat.FP32: 2e-6, RowFormat.FP16: 4e-6, RowFormat.BF16: 6e-3,
             RowFormat.INT8: 4e-3, RowFormat.INT4: 2e-2}  # fmt: skip
FP16_ARITHMETIC = {"avx512_fp16": 2e-3, "neon_i8mm": 2e-3}
"""What instruction sets that compute fp16 rows in fp16 lose beside fp32."""
ACTIVATION_STEP = {torch.float32: 0.0, torch.float16: 5e-4, torch.bfloat16: 4e-3}


Body = Callable[[int, int], None]
PARALLEL = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int),
    ctypes.c_void_p,
)

ISAS = kernel.supported_isas()
every_isa = pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS.keys())


def tolerance(form: RowFormat, isa: int | None = None) -> float:
    """Of an instruction set, the one that calls get by themselves unless given."""
    name = kernel.best_isa() if isa is None else next(n for n, i in ISAS.items() if i == isa)
    return FP16_ARITHMETIC.get(name, TOLERANCE[form]) if form == RowFormat.FP16 else TOLERANCE[form]


@every_isa
@pytest.mark.parametrize("form", RowFormat, ids=str)
@given(call=calls())
def test_kernel_computes_the_definition(isa: int, form: RowFormat, call: Call) -> None:
    inputs = Inputs(call, form)
    expected = inputs.expected()
    limit = tolerance(form, isa) + ACTIVATION_STEP[call.activations]
    assert relative_error(inputs.run(isa), expected) < limit


@every_isa
@pytest.mark.parametrize("rope", ["none", "full"])
@pytest.mark.parametrize("group", [1, 4, 8])
def test_fp16_rows_of_the_largest_magnitude_do_not_overflow(
    isa: int, rope: str, group: int
) -> None:
    inputs = Inputs(Call(group=group, rope=rope, position=600), RowFormat.FP16)
    for rows in (*inputs.caches[0], inputs.c):
        rows.copy_(rows.sign() * 65504)
    inputs.q /= 65504
    expected = inputs.expected()
    assert relative_error(inputs.run(isa), expected) < tolerance(RowFormat.FP16, isa)


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


@pytest.mark.parametrize("isa", [0, kernel.BEST_ISA], ids=["plain", "best"])
@given(call=calls(position=1100, activations=torch.float32))
def test_thread_count_changes_nothing(isa: int, call: Call) -> None:
    inputs = Inputs(call, RowFormat.INT8)
    alone = inputs.run(isa, threads=1)
    assert relative_error(inputs.run(isa, threads=7), alone) < 1e-6


@given(call=calls(activations=torch.float32, threads=3))
def test_a_callers_threads_give_the_same_result(call: Call) -> None:
    inputs = Inputs(call, RowFormat.FP32)
    own = inputs.run()

    @PARALLEL
    def in_reverse(_: int, tasks: int, body: Body, context: int) -> None:
        for task in reversed(range(tasks)):
            body(context, task)

    assert torch.equal(inputs.run(parallel=ctypes.cast(in_reverse, ctypes.c_void_p)), own)


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core has no thread to wake")
@pytest.mark.parametrize(("position", "woken"), [(20, []), (4000, [2])])
def test_threads_are_woken_only_where_it_is_worth_it(position: int, woken: list[int]) -> None:
    asked: list[int] = []

    @PARALLEL
    def count(_: int, tasks: int, body: Body, context: int) -> None:
        asked.append(min(tasks, 2))
        for task in range(tasks):
            body(context, task)

    inputs = Inputs(Call(position=position), RowFormat.FP32)
    inputs.run(threads=0, parallel=ctypes.cast(count, ctypes.c_void_p))
    assert asked == woken


REFUSED = {
    "another ABI": ({"abi": 99}, "another version"),
    "no batch": ({"batch": 0}, "batch"),
    "heads that do not divide": ({"heads": 5}, "kv heads"),
    "no kv heads": ({"kv_heads": 0}, "kv heads"),
    "odd head_dim": ({"head_dim": 60}, "head_dim"),
    "huge head_dim": ({"head_dim": 1 << 40}, "head_dim"),
    "unknown format": ({"format": 9}, "row format"),
    "negative position": ({"position": -1}, "position"),
    "overflow": ({"position": 24}, "do not fit"),
    "absurd position": ({"position": 1 << 62}, "position"),
    "short table": ({"table_length": 20}, "tables"),
    "NaN scale": ({"scale": float("nan")}, "scale"),
    "missing sines": ({"sin": None}, "missing"),
    "missing output": ({"out": kernel.CTensor()}, "missing"),
    "negative threads": ({"threads": -1}, "threads"),
    "unknown isa": ({"isa": 99}, "instruction set"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_arguments_are_refused_and_touch_nothing(
    changes: dict[str, object], reason: str
) -> None:
    inputs = Inputs(Call(rope="full"), RowFormat.INT8)
    refuse(inputs, reason, **changes)


@pytest.mark.parametrize("field", ["q", "new_rows", "out", "rows"])
def test_a_misaligned_pointer_is_refused(field: str) -> None:
    inputs = Inputs(Call(), RowFormat.FP32)
    tensor = getattr(inputs.arguments(torch.empty_like(inputs.q)), field)
    if field == "rows":
        tensor.part[0] += 1
    else:
        tensor.data += 1
    refuse(inputs, "aligned", **{field: tensor})


@pytest.mark.parametrize(
    ("form", "value", "reason"),
    [
        (RowFormat.FP32, float("nan"), "not finite"),
        (RowFormat.INT8, float("inf"), "not finite"),
        (RowFormat.FP16, 7e4, "cannot"),
        (RowFormat.INT4, 1e6, "cannot"),
    ],
)
def test_rows_that_a_format_cannot_hold_are_refused(
    form: RowFormat, value: float, reason: str
) -> None:
    inputs = Inputs(Call(), form)
    inputs.c[0, 0, 1, 5] = value
    refuse(inputs, reason)


def refuse(inputs: Inputs, reason: str, **changes: object) -> None:
    before, out = inputs.clone_caches(), torch.full_like(inputs.q, 3.0)
    args = inputs.arguments(out)
    for field, value in changes.items():
        setattr(args, field, value)
    with pytest.raises(kernel.KernelError, match=reason):
        kernel.attend(args)
    assert torch.equal(out, torch.full_like(out, 3.0))
    for old, new in zip(before[0], inputs.caches[0]):
        assert torch.equal(old.view(torch.uint8), new.view(torch.uint8))
