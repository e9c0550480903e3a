"""The eager operators by the kernel: the definition's numbers, errors, and the way back to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import assume, given

from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.runtime import kernel_library, reference
from onekv.runtime.adapters import torch_ops
from onekv.runtime.adapters.torch_kernel import kernel_attention
from onekv.runtime.rows import RowFormat
from tests.kernel.calls import Call, Inputs, calls, relative_error
from tests.kernel.test_kernel import ACTIVATION_STEP, tolerance
from tests.specs import tiny_decoder, token_ids


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of new tokens of all calls that reach the kernel, which is asked for."""
    seen: list[int] = []
    run = kernel_library.attend

    def counted(args: kernel_library.CAttendArgs) -> None:
        seen.append(args.new_tokens)
        run(args)

    monkeypatch.setattr(kernel_library, "attend", counted)
    with kernel_attention():
        yield seen


@pytest.mark.parametrize("form", RowFormat, ids=str)
@given(call=calls(parts=1, two_tensors=False))
def test_attend_computes_the_definition(form: RowFormat, call: Call) -> None:
    assume(call.rope != "interleaved")
    inputs = Inputs(call, form)
    expected = inputs.expected()
    with kernel_attention():
        out = torch_ops.attend(inputs.q, inputs.c, inputs.caches[0][0], inputs.pos, inputs.cos,
                               inputs.sin, inputs.gain, inputs.scale, call.window)  # fmt: skip
    assert relative_error(out, expected) < tolerance(form) + ACTIVATION_STEP[call.activations]


@pytest.mark.parametrize("form", RowFormat, ids=str)
@given(call=calls(parts=1, two_tensors=True, rope="none", gain=False))
def test_attend_kv_computes_the_definition(form: RowFormat, call: Call) -> None:
    inputs = Inputs(call, form)
    expected = inputs.expected()
    (keys,), (values,) = inputs.caches
    with kernel_attention():
        out = torch_ops.attend_kv(inputs.q, inputs.c, inputs.v, keys, values, inputs.pos,
                                  inputs.scale, call.window)  # fmt: skip
    assert relative_error(out, expected) < tolerance(form) + ACTIVATION_STEP[call.activations]


def test_rows_of_two_records_are_read_as_such(kernel_calls: list[int]) -> None:
    inputs = Inputs(Call(parts=2, head_dim=64, rope="full"), RowFormat.INT8)
    records = torch.cat(inputs.caches[0], dim=-1)
    out = torch_ops.attend(inputs.q, inputs.c, records, inputs.pos, inputs.cos, inputs.sin, None,
                           inputs.scale)  # fmt: skip
    assert kernel_calls == [1]
    assert relative_error(out, inputs.expected()) < tolerance(RowFormat.INT8)


def test_a_model_runs_every_layer_in_the_kernel(spec: ModelSpec, kernel_calls: list[int]) -> None:
    tokens = token_ids(spec, 24)[0].tolist()
    own = DecoderSession(tiny_decoder(spec), 48)
    got = [own.step(tokens[:20]), own.step(tokens[20:])]
    assert kernel_calls == [20] * spec.layers + [4] * spec.layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_library, "attend", _refuse)
        defined = DecoderSession(tiny_decoder(spec), 48)
        want = [defined.step(tokens[:20]), defined.step(tokens[20:])]
    for a, b in zip(got, want):
        assert relative_error(torch.tensor(a), torch.tensor(b)) < 1e-5


def _refuse(args: kernel_library.CAttendArgs) -> None:
    raise kernel_library.KernelError(1, "refused")


def test_nothing_reaches_the_kernel_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_library, "attend", lambda *_: pytest.fail("the kernel was called"))
    inputs = Inputs(Call(), RowFormat.FP32)
    torch_ops.attend(inputs.q, inputs.c, inputs.caches[0][0], inputs.pos)


@pytest.mark.parametrize("pos", [40, -1])
def test_what_the_kernel_refuses_fails_as_the_definition_does(
    kernel_calls: list[int], pos: int
) -> None:
    inputs = Inputs(Call(), RowFormat.FP32)
    before = inputs.clone_caches()[0][0]
    with pytest.raises(reference.CacheOverflowError):
        torch_ops.attend(inputs.q, inputs.c, inputs.caches[0][0], torch.tensor([pos]))
    assert kernel_calls == [1]
    assert torch.equal(before.nan_to_num(), inputs.caches[0][0].nan_to_num())


def test_shapes_that_contradict_each_other_reach_no_kernel(kernel_calls: list[int]) -> None:
    cache = torch.zeros(1, 2, 8, 64)
    with pytest.raises(ValueError, match="do not belong together"):
        torch_ops.attend(torch.zeros(1, 1, 4, 32), torch.zeros(1, 1, 2, 64), cache, torch.tensor(0))
    with pytest.raises(ValueError, match="do not cover"):
        torch_ops.attend(torch.zeros(1, 1, 4, 64), torch.zeros(1, 1, 2, 64), cache,
                         torch.tensor([3]), torch.zeros(3, 32), torch.zeros(3, 32))  # fmt: skip
    assert not kernel_calls


def test_a_type_that_the_kernel_lacks_runs_as_defined(kernel_calls: list[int]) -> None:
    inputs = Inputs(Call(rope="full"), RowFormat.FP32)
    q, c, cache = (t.double() for t in (inputs.q, inputs.c, inputs.caches[0][0]))
    out = torch_ops.attend(q, c, cache, inputs.pos, inputs.cos, inputs.sin, None, inputs.scale)
    assert out.dtype == torch.float64 and not kernel_calls
