"""Caches of int8 and int4 rows: records of standard operators, and the model over rounded rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onekv.errors import UsageError
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target
from onekv.export.plan import plan_memory
from onekv.export.targets.onnx.body import OPSET
from onekv.export.targets.onnx.records import decode_text, encode_text
from onekv.export.targets.onnx.rules import check
from onekv.export.verify import difference
from onekv.quantize.numbers import ROUNDED, Number
from onekv.runtime.generate import Generation, Sampling, generate
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from onekv.runtime.row_codec import decode, encode
from onekv.runtime.rows import RowFormat
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids
from tests.targets.onnx.conftest import CONTEXT, Lowered
from tests.targets.onnx.test_genai import PROMPT, genai_tokens

FORMS = [RowFormat.INT8, RowFormat.INT4]
DIMS = [8, 24, 32, 40, 64, 96, 128]
SPECS = [
    LLAMA["llama Q-GQA-2"],
    LLAMA["llama GQA-2"],
    LLAMA["llama Q-GQA-2, window"],
    PAPER["Q-GQA-2"],
    PAPER["Q-MQA"],
]
SHARED = SPECS[0]

forms = pytest.mark.parametrize("form", FORMS)
dims = pytest.mark.parametrize("dim", DIMS)


@cache
def run(text: str, source: str, kind: str, result: str, result_kind: str) -> Callable[..., Tensor]:
    """The nodes of `text` as a function of one tensor."""
    graph = f"""<ir_version: 8, opset_import: ["": {OPSET}]>
    g ({kind}[1, H, S, D] {source}) => ({result_kind}[1, H, S, E] {result}) {{ {text} }}"""
    model = onnx.parser.parse_model(graph).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda tensor: torch.from_numpy(session.run(None, {source: tensor.numpy()})[0])


def encoder(form: RowFormat, dim: int) -> Callable[..., Tensor]:
    return run(encode_text(form, "x", "new", dim), "new", "float", "x_rows", "uint8")


def decoder(form: RowFormat, dim: int) -> Callable[..., Tensor]:
    return run(decode_text(form, "x", dim), "x_filled", "uint8", "x", "float")


def rows(dim: int, scale: float, seed: int = 0) -> Tensor:
    return scale * torch.randn(1, 3, 5, dim, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from(FORMS), st.sampled_from(DIMS), st.floats(-4, 4), st.integers(0, 1000))
def test_records_are_those_of_the_definition_bit_for_bit(
    form: RowFormat, dim: int, exponent: float, seed: int
) -> None:
    values = rows(dim, 10**exponent, seed)
    assert torch.equal(encoder(form, dim)(values), encode(values, form))


@forms
@dims
@pytest.mark.parametrize("scale", [2.0**-13, 1.0, 7.0, 127.0, 0.0])
def test_scales_at_the_edges_of_their_exponents_are_exact(
    form: RowFormat, dim: int, scale: float
) -> None:
    values = rows(dim, 0.1).clamp(-1, 1)
    values[..., 0] = scale * torch.tensor([1.0, 2.0, 4.0, 0.5, 0.25])
    values[..., 0, 0, 0:8] = 0.0
    records = encode(values, form)
    assert torch.equal(encoder(form, dim)(values), records)
    assert torch.equal(decoder(form, dim)(records), decode(records, form))


@forms
@dims
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_reading_gives_the_rows_of_the_definition(form: RowFormat, dim: int, scale: float) -> None:
    records = encode(rows(dim, scale), form)
    assert torch.equal(decoder(form, dim)(records), decode(records, form))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
@pytest.mark.parametrize("number", ROUNDED)
@pytest.mark.parametrize("kernel", [None, False], ids=["kernel", "stock"])
def test_the_file_computes_the_model_over_rounded_rows(
    lowered: Lowered, spec: ModelSpec, number: Number, kernel: bool | None
) -> None:
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    parts = 2 if spec.sharing.one_tensor else 1
    source = DecoderSession(tiny_decoder(spec), CONTEXT, RowFormat(number), parts)
    want = source.step(tokens)
    path = lowered(spec, Number.FP32, number)
    session = OnnxSession(path, CONTEXT, OnnxOptions(kernel=kernel))
    got = np.concatenate([session.step(part) for part in (tokens[:13], tokens[13:14], tokens[14:])])
    # One element that falls on the other side of a half step.
    assert difference(got, want).relative_l2 <= (2e-3 if number is Number.INT8 else 2e-2)
    plain = DecoderSession(tiny_decoder(spec), CONTEXT).step(tokens)
    assert difference(plain, want).relative_l2 > difference(got, want).relative_l2
    options = ExportOptions(Target.ONNX, CONTEXT, cache=number)
    assert session.cache_bytes == plan_memory(spec, options).cache == source.cache_bytes


@pytest.mark.parametrize("number", ROUNDED)
def test_rows_past_the_filled_length_are_never_read(lowered: Lowered, number: Number) -> None:
    path = lowered(SHARED, Number.FP32, number)
    clean, poisoned = (OnnxSession(path, CONTEXT, OnnxOptions(kernel=False)) for _ in range(2))
    for value in poisoned._caches.values():
        value.numpy()[...] = 255
    for tokens in ([1, 2, 3], [4], [5, 6]):
        np.testing.assert_array_equal(poisoned.step(tokens), clean.step(tokens))


@pytest.mark.parametrize("number", ROUNDED)
def test_genai_keeps_the_records(lowered: Lowered, number: Number) -> None:
    path = lowered(SHARED, Number.FP32, number)
    session = OnnxSession(path, CONTEXT, OnnxOptions(kernel=False))
    want = list(generate(session, Generation(len(PROMPT)), PROMPT, Sampling(), (1,), 12))
    got = genai_tokens(path.parent, len(PROMPT) + 12)
    assert len(want) > 4 and [token for token in got if token != 1] == want


@pytest.mark.parametrize("head_dim", [48, 112])
def test_int4_halves_that_cannot_be_told_from_one_record_are_refused(head_dim: int) -> None:
    spec = replace(SHARED, head_dim=head_dim)
    with pytest.raises(UsageError, match=f"int4 rows of head_dim {head_dim}"):
        check(spec, ExportOptions(Target.ONNX, CONTEXT, cache=Number.INT4))
    check(replace(SHARED, head_dim=64), ExportOptions(Target.ONNX, CONTEXT, cache=Number.INT4))
