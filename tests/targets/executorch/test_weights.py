"""Integer weights: the export's integers reach XNNPACK and the embedding; nothing else is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.options import Asked, ExportOptions, Target
from onekv.export.plan import plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.targets import LowerRequest
from onekv.export.targets.executorch.lower import lower
from onekv.export.targets.executorch.weights import IntegerMatrix, exchange_weights
from onekv.export.verify import difference
from onekv.quantize.activations import round_activations, rounded
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight, quantise, quantise_weights
from onekv.runtime.executorch_program import read_program
from onekv.runtime.executorch_session import ExecutorchSession
from tests.specs import LLAMA, tiny_decoder, token_ids
from tests.targets.executorch.conftest import CONTEXT, slow
from tests.targets.executorch.test_parity import in_pieces

SPEC = replace(LLAMA["llama Q-GQA-2, separate head"], layers=1)


def options(weights: Number) -> ExportOptions:
    return resolve_options(
        SPEC, Target.EXECUTORCH, Asked(context=CONTEXT, weights=weights, cache=Number.FP32)
    )


def integers(weights: Number) -> dict[str, QuantisedWeight]:
    plan = plan_weights_of(SPEC, options(weights))
    return quantise_weights(tiny_decoder(SPEC).state_dict(), plan, lambda done, total: None)


def source(quantised: dict[str, QuantisedWeight]) -> Decoder:
    """What the file is to compute: the same integers, activations rounded where they meet them."""
    state = dict(tiny_decoder(SPEC).state_dict())
    state |= {name: weight.dequantise() for name, weight in quantised.items()}
    decoder = build_decoder(SPEC, state, CONTEXT)
    round_activations(decoder, quantised)
    return decoder


@pytest.mark.parametrize("weights", [Number.INT4, *slow(Number.INT8)])
def test_the_program_computes_the_exports_integers(weights: Number, tmp_path: Path) -> None:
    quantised = integers(weights)
    request = LowerRequest(
        SPEC, options(weights), tiny_decoder(SPEC).state_dict, (1,), None, quantised
    )
    path = tmp_path / lower(request, tmp_path)
    tokens = token_ids(SPEC, CONTEXT)[0].tolist()
    want = DecoderSession(source(quantised), CONTEXT).step(tokens)
    got = in_pieces(ExecutorchSession(path, CONTEXT), tokens)
    assert difference(got, want).relative_l2 <= 2e-2
    plain = DecoderSession(tiny_decoder(SPEC), CONTEXT).step(tokens)
    assert difference(got, want).relative_l2 < difference(got, plain).relative_l2 / 2
    program = read_program(path)
    embedding = "embedding_byte.out" if weights is Number.INT8 else "embedding_4bit.out"
    assert program.operators[f"quantized_decomposed::{embedding}"] == 1
    assert not [name for name in program.portable if "quantize" in name or "linear" in name]


def test_activations_are_rounded_as_the_graph_rounds_them() -> None:
    from onekv.export.targets.executorch.weights import rounded as in_graph

    x = torch.randn(1, 5, 64) * torch.logspace(-3, 2, 5).unsqueeze(1)
    x[0, 0] = 0
    torch.testing.assert_close(in_graph(x), rounded(x), rtol=1e-5, atol=1e-6)
    assert (rounded(x) - x).abs().amax(-1).le((x.amax(-1) - x.amin(-1)) / 255 + 1e-6).all()


def test_a_matrix_of_integers_is_what_the_export_made() -> None:
    for number, group in ((Number.INT8, 64), (Number.INT4, 32)):
        weight = quantise(torch.randn(48, 64), number, group)
        torch.testing.assert_close(IntegerMatrix(weight)(), weight.dequantise(), rtol=0, atol=0)


def test_the_float_weights_are_let_go_of() -> None:
    quantised = integers(Number.INT8)
    decoder = tiny_decoder(SPEC)
    exchange_weights(decoder, quantised)
    floats = {name for name, _ in decoder.named_parameters()}
    assert not floats & {name for name in quantised if name != "lm_head.weight"}
