"""onnxruntime-genai runs the bundle as it is, with one row per token and layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.quantize.numbers import Number
from onekv.runtime.generate import Generation, Sampling, generate
from tests.specs import LLAMA, PAPER, tiny_decoder
from tests.targets.onnx.conftest import CONTEXT, Lowered

og = pytest.importorskip("onnxruntime_genai")

MODELS = [LLAMA["llama Q-GQA-2"], LLAMA["llama GQA-2"], PAPER["Q-GQA-2"], PAPER["QKV"]]
PROMPT = [3, 14, 15, 92, 65]


def genai_tokens(folder: Path, max_length: int | None) -> list[int]:
    """Greedy tokens after PROMPT, through the library that phone apps use."""
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    if max_length is not None:
        params.set_search_options(max_length=max_length)
    generator = og.Generator(model, params)
    generator.append_tokens(PROMPT)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(PROMPT) :]


def expected_tokens(spec: ModelSpec, length: int) -> list[int]:
    """What the source model answers, ended by the end-of-text token or the length."""
    session = DecoderSession(tiny_decoder(spec), CONTEXT)
    answer = Generation(len(PROMPT))
    return list(generate(session, answer, PROMPT, Sampling(), (1,), length - len(PROMPT)))


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.variant)
@pytest.mark.parametrize("max_length", [None, 30], ids=["whole context", "shorter cache"])
def test_genai_gives_the_source_models_tokens(
    lowered: Lowered, spec: ModelSpec, max_length: int | None
) -> None:
    want = expected_tokens(spec, max_length or CONTEXT)
    got = genai_tokens(lowered(spec).parent, max_length)
    assert [token for token in got if token != 1] == want


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.variant)
def test_genai_is_told_of_one_row_per_token_and_layer(lowered: Lowered, spec: ModelSpec) -> None:
    config = json.loads((lowered(spec).parent / "genai_config.json").read_text())
    decoder = config["model"]["decoder"]
    per_token = 2 * decoder["num_key_value_heads"] * decoder["head_size"]
    assert per_token == spec.sharing.cached_tensors * spec.kv_heads * spec.head_dim
    assert decoder["num_hidden_layers"] == spec.layers
    assert config["search"]["past_present_share_buffer"] is True


def test_genai_runs_an_fp16_bundle(lowered: Lowered) -> None:
    spec = LLAMA["llama Q-GQA-2"]
    got = genai_tokens(lowered(spec, Number.FP16).parent, 12)
    assert len(got) == 7 or got[-1] == 1
