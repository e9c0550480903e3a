"""The parity gate can fail: operators that are wrong in one way do not get through it.

A mutant is the source model with a defect at the operator, judged as a bundle would be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from onekv.export.golden import Golden, golden_run
from onekv.export.manifest import Parity
from onekv.export.model.decoder import Decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions, Target
from onekv.export.source import firm_answer
from onekv.export.verify import check_parity
from onekv.quantize import activations
from onekv.quantize.activations import round_activations
from onekv.quantize.numbers import Number
from onekv.runtime.adapters import torch_ops
from onekv.runtime.reference import attend, rotate
from tests.specs import LLAMA, ONE_TENSOR, PAPER, llama_spec, tiny_decoder, token_ids

PROMPT, CONTEXT = 12, 32
FP32 = ExportOptions(Target.ONNX, CONTEXT)
FP16 = ExportOptions(Target.ONNX, CONTEXT, Number.FP16, Number.FP16)

Mutant = Callable[..., Tensor]


def wrong_write_slot(q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, *rest: Any) -> Tensor:
    """Every row ends up one slot early."""
    out = attend(q, c, cache, pos, *rest)
    start, end = int(pos), int(pos) + q.shape[1]
    first = max(start, 1)
    cache[:, :, first - 1 : end - 1] = cache[:, :, first:end].clone()
    return out


def visible_future(q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, *rest: Any) -> Tensor:
    """Every query of a chunk sees the whole chunk."""
    attend(q, c, cache, pos, *rest)
    last = pos + q.shape[1] - 1
    outputs = [attend(one, c[:, -1:], cache, last, *rest) for one in q.split(1, dim=1)]
    return torch.cat(outputs, dim=1)


def hidden_own_row(q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, *rest: Any) -> Tensor:
    """The mask ends one row early: a query past the first does not see its own row."""
    attend(q, c, cache, pos, *rest)
    outputs = []
    for index, one in enumerate(q.split(1, dim=1)):
        seen = max(0, int(pos) + index - 1)
        row = cache[:, :, seen : seen + 1].transpose(1, 2)
        outputs.append(attend(one, row, cache, torch.tensor([seen]), *rest))
    return torch.cat(outputs, dim=1)


def query_one_position_late(
    q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, cos: Tensor, sin: Tensor, *rest: Any
) -> Tensor:
    """Queries are rotated for the position after their own."""
    return attend(rotate(q, cos[1], sin[1]), c, cache, pos, cos, sin, *rest)


def rotated_values(
    q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, cos: Tensor, sin: Tensor, *rest: Any
) -> Tensor:
    """The rotated row is cached, and serves as value too."""
    positions = int(pos) + torch.arange(q.shape[1])
    keys = rotate(c, cos[positions, None], sin[positions, None])
    return attend(q, keys, cache, pos, None, None, *rest)


def interleaved_groups(q: Tensor, c: Tensor, cache: Tensor, pos: Tensor, *rest: Any) -> Tensor:
    """Query head h reads kv head h mod Hkv instead of h // group size."""
    heads, kv_heads = q.shape[2], c.shape[2]
    order = torch.arange(heads).reshape(-1, kv_heads).T.flatten()
    return attend(q[:, :, order], c, cache, pos, *rest)[:, :, order.argsort()]


def window_one_too_wide(*arguments: Any) -> Tensor:
    """A query sees one row more than its window."""
    *front, window = arguments
    return attend(*front, window + 1)


def nothing_but_nan(q: Tensor, *rest: Any) -> Tensor:
    """Comparisons with NaN are all false, the one with the tolerance too."""
    return attend(q, *rest) * float("nan")


ANY = [LLAMA["llama Q-GQA-2"], PAPER["Q-GQA-2"], PAPER["Q-K=V"], LLAMA["llama Q=K=V"]]
ROTARY = [LLAMA["llama Q-GQA-2"], LLAMA["llama Q-MQA"]]
MUTANTS: list[tuple[Mutant, list[ModelSpec]]] = [
    (wrong_write_slot, ANY),
    (visible_future, ANY),
    (hidden_own_row, ANY),
    (query_one_position_late, ROTARY),
    (rotated_values, ROTARY),
    (interleaved_groups, [LLAMA["llama Q-GQA-2"], PAPER["Q-GQA-2"]]),
    (nothing_but_nan, [PAPER["Q-K=V"]]),
    (window_one_too_wide, [LLAMA["llama Q-GQA-2, window"]]),
]
CASES = [
    pytest.param(mutant, spec, id=f"{mutant.__name__}-{spec.variant}")
    for mutant, specs in MUTANTS
    for spec in specs
]


def judged(decoder: Decoder, mutant: Mutant, options: ExportOptions) -> Parity:
    """What the gate says of a decoder whose operator is `mutant`."""
    prompt = token_ids(decoder.spec, PROMPT)[0].tolist()
    golden = golden_run(DecoderSession(decoder, CONTEXT), prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_ops, "attend", mutant)
        return check_parity(DecoderSession(decoder, CONTEXT), golden, options, "the source model")


@pytest.mark.parametrize("options", [FP32, FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize(("mutant", "spec"), CASES)
def test_a_wrong_operator_is_refused(
    mutant: Mutant, spec: ModelSpec, options: ExportOptions
) -> None:
    parity = judged(tiny_decoder(spec), mutant, options)
    assert not parity.passed
    assert any("relative L2" in reason for reason in parity.reasons)


@pytest.mark.parametrize("name", ONE_TENSOR)
def test_the_right_operator_passes(name: str) -> None:
    parity = judged(tiny_decoder(ONE_TENSOR[name]), attend, FP32)
    assert parity.passed, parity.reasons
    assert parity.greedy_equal == parity.greedy_tokens == CONTEXT - PROMPT


@pytest.mark.parametrize("options", [FP32, FP16], ids=["fp32", "fp16"])
def test_a_query_rotated_one_position_late_is_refused_though_every_token_agrees(
    options: ExportOptions,
) -> None:
    """Argmax alone would let it through, as it does in models that lean on their residual."""
    decoder = tiny_decoder(llama_spec(Sharing.K_IS_V, kv_heads=2))
    for layer in decoder.layers:
        layer.self_attn.o_proj.weight *= 0.03
    parity = judged(decoder, query_one_position_late, options)
    assert parity.prefill.argmax_agreement == parity.decode.argmax_agreement == 1
    assert parity.greedy_equal == parity.greedy_tokens
    assert not parity.passed


def rounding_decoder(spec: ModelSpec) -> Decoder:
    """A decoder whose linear layers round what they multiply."""
    decoder = tiny_decoder(spec)
    round_activations(decoder, {f"{name}.weight" for name, _ in decoder.named_modules()})
    return decoder


def answer(decoder: Decoder) -> Golden:
    """What `decoder` says, and how firmly."""
    source = DecoderSession(decoder, CONTEXT)
    return firm_answer(source, token_ids(decoder.spec, PROMPT)[0].tolist())


def test_a_model_that_rounds_is_less_firm_than_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disturbance large enough that some of a tiny model's few numbers change their step."""
    monkeypatch.setattr(activations, "_DISTURBANCE", 1e-4)
    spec = LLAMA["llama Q-GQA-2"]
    rounds, floats = answer(rounding_decoder(spec)), answer(tiny_decoder(spec))
    assert 0 < 5 * floats.drift < rounds.drift


def test_the_limit_is_twice_the_drift_of_the_source_and_refuses_what_lies_beyond() -> None:
    decoder = rounding_decoder(LLAMA["llama Q-GQA-2"])
    golden = replace(answer(decoder), drift=0.01)
    int4 = ExportOptions(Target.EXECUTORCH, CONTEXT, Number.INT4)
    judged = check_parity(DecoderSession(decoder, CONTEXT), golden, int4, "itself")
    assert judged.passed
    assert judged.tolerance == pytest.approx(0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_ops, "attend", query_one_position_late)
        late = check_parity(DecoderSession(decoder, CONTEXT), golden, int4, "itself")
    assert not late.passed
