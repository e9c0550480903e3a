"""Integer weights in the file: the values that were given, stored once, and multiplied exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from torch import Tensor

from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.decoder import build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, Target
from onekv.export.plan import plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.source import quantise_checkpoint
from onekv.export.targets import LowerRequest
from onekv.export.targets.onnx.lower import lower
from onekv.export.verify import difference
from onekv.quantize.numbers import ROUNDED, Number
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids
from tests.targets.onnx.conftest import CONTEXT, Lowered, tiny_integers

SPECS = [
    LLAMA["llama Q-GQA-2"],
    LLAMA["llama Q-GQA-2, separate head"],
    LLAMA["llama Q-GQA-2, wide heads, biases"],
    LLAMA["llama GQA-2"],
    PAPER["Q-GQA-2"],
]
TIED, UNTIED = SPECS[0], SPECS[1]

models = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
numbers = pytest.mark.parametrize("number", ROUNDED)


def rounded_state(spec: ModelSpec, number: Number) -> dict[str, Tensor]:
    weights = {name: w.dequantise() for name, w in tiny_integers(spec, number).items()}
    return {**tiny_decoder(spec).state_dict(), **weights}


def error(path: Path, spec: ModelSpec, number: Number, options: OnnxOptions) -> float:
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    source = build_decoder(spec, rounded_state(spec, number), CONTEXT)
    want = DecoderSession(source, CONTEXT).step(tokens)
    session = OnnxSession(path, CONTEXT, options)
    got = np.concatenate([session.step(part) for part in (tokens[:13], tokens[13:14], tokens[14:])])
    return difference(got, want).relative_l2


@models
@numbers
def test_with_float_activations_the_file_computes_the_rounded_model(
    lowered: Lowered, spec: ModelSpec, number: Number
) -> None:
    assert error(lowered(spec, number), spec, number, OnnxOptions(exact=True)) <= 1e-5


@numbers
def test_as_it_ships_activations_are_rounded_to_int8(lowered: Lowered, number: Number) -> None:
    assert 1e-4 < error(lowered(TIED, number), TIED, number, OnnxOptions()) <= 3e-2


def stored_integers(path: Path, name: str, columns: int) -> np.ndarray:
    """A weight's integers as the file holds them, read without onekv's packing."""
    tensors = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    tensor = tensors.get(f"decoder.{name}.blocks") or tensors[f"decoder.{name}.rows"]
    stored = onnx.numpy_helper.to_array(tensor, str(path.parent))
    flat = stored.reshape(len(stored), -1)
    if flat.shape[1] == columns:
        return flat.astype(int) - 128
    return np.stack([flat & 15, flat >> 4], axis=-1).reshape(len(flat), -1).astype(int) - 8


@pytest.mark.parametrize("spec", [TIED, UNTIED], ids=["tied", "untied"])
@numbers
def test_the_file_holds_the_integers_that_it_was_given(
    lowered: Lowered, spec: ModelSpec, number: Number
) -> None:
    path = lowered(spec, number)
    for name, weight in tiny_integers(spec, number).items():
        found = stored_integers(path, name, weight.values.shape[1])
        np.testing.assert_array_equal(found, weight.values.numpy(), err_msg=name)


def test_a_tied_embedding_is_in_the_file_once(lowered: Lowered) -> None:
    model = onnx.load(lowered(TIED, Number.INT8), load_external_data=False)
    places = {
        t.name: {entry.key: entry.value for entry in t.external_data}
        for t in model.graph.initializer
        if "embed_tokens.weight" in t.name and t.data_location == onnx.TensorProto.EXTERNAL
    }
    rows, blocks = (places[f"decoder.embed_tokens.weight.{form}"] for form in ("rows", "blocks"))
    assert rows == blocks and int(rows["length"]) == TIED.vocab_size * TIED.hidden_size


@numbers
def test_the_file_is_as_large_as_the_plan_says(tmp_path: Path, number: Number) -> None:
    checkpoint = open_checkpoint(Path("samples/tiny"))
    options = resolve_options(checkpoint.spec, Target.ONNX, Asked(weights=number))
    quantised = quantise_checkpoint(checkpoint, options, lambda *_: None)
    request = LowerRequest(checkpoint.spec, options, checkpoint.load, (0,), None, quantised)
    lower(request, tmp_path)
    tables = 4 * options.context * checkpoint.spec.head_dim
    held = (tmp_path / "model.onnx.data").stat().st_size - tables
    assert held == pytest.approx(plan_weights_of(checkpoint.spec, options).bytes, rel=0.02)


def test_the_file_says_nothing_of_the_machine_that_made_it(lowered: Lowered) -> None:
    content = lowered(TIED, Number.INT4).read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content


def test_genai_gives_the_tokens_of_the_session(lowered: Lowered) -> None:
    pytest.importorskip("onnxruntime_genai")
    from onekv.runtime.generate import Generation, Sampling, generate
    from tests.targets.onnx.test_genai import PROMPT, genai_tokens

    path = lowered(TIED, Number.INT4)
    session = OnnxSession(path, CONTEXT)
    answer = generate(session, Generation(len(PROMPT)), PROMPT, Sampling(), (1,), 12)
    got = genai_tokens(path.parent, len(PROMPT) + 12)
    assert [token for token in got if token != 1] == list(answer)
