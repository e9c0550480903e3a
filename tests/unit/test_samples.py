"""The shipped sample folders: small enough, readable by stock tools, and worth something."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from onekv.export.checkpoints.huggingface import open_folder
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import Sharing
from onekv.quantize.quality import perplexity
from samples.recipe import CONFIGURATIONS, SHIPPED
from samples.vocabulary import END_OF_TEXT, VOCAB_SIZE, train_tokenizer

SAMPLES = Path(__file__).parents[2] / "samples"
SHIPPED_FILES = [*(f for name in SHIPPED for f in (SAMPLES / name).iterdir())]
VALIDATION = SAMPLES / "validation.txt"

AWKWARD = (
    "To be, or not  to be:\n\n\ttab \r\n",
    "na\u00efve \u6f22\u5b57 \U0001f600 e\u0301",
    "x = {'a': 1e-5}; // 100%\x00\x7f",
    " ",
)


def decoder_of(name: str) -> Decoder:
    stored = load_file(SAMPLES / name / "model.safetensors")
    state = {key.removeprefix("model."): tensor.float() for key, tensor in stored.items()}
    return build_decoder(CONFIGURATIONS[name], state)


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tokenizer_gives_any_text_back(name: str, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(SAMPLES / name / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", AWKWARD)
def test_a_new_tokenizer_gives_any_text_back(text: str) -> None:
    tokenizer = train_tokenizer(["the cat and the hat"], vocab_size=270)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_both_samples_have_the_same_tokenizer() -> None:
    ours, twin = ((SAMPLES / name / "tokenizer.json").read_bytes() for name in SHIPPED)
    assert ours == twin


def test_transformers_tokenizer_agrees_with_the_file() -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(SAMPLES / "tiny")
    ours = Tokenizer.from_file(str(SAMPLES / "tiny" / "tokenizer.json"))
    text = VALIDATION.read_text("utf-8")[:4000] + AWKWARD[1]
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert theirs.eos_token_id == theirs.bos_token_id == 0


def test_samples_stay_within_12_mb() -> None:
    assert sum(f.stat().st_size for f in [*SHIPPED_FILES, VALIDATION]) < 12_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_folder_is_the_configuration_that_was_trained(name: str) -> None:
    checkpoint, trained = open_folder(SAMPLES / name), CONFIGURATIONS[name]
    assert checkpoint.spec.rope is not None
    assert trained.rope is not None
    assert checkpoint.spec.rope.theta == trained.rope.theta
    assert replace(checkpoint.spec, rope=trained.rope) == trained
    assert checkpoint.eos_token_ids == (0,)


def test_the_samples_differ_in_their_sharing_alone() -> None:
    ours, twin = (CONFIGURATIONS[name] for name in SHIPPED)
    assert ours.sharing is Sharing.K_IS_V
    assert ours.with_sharing(Sharing.QKV) == twin


def test_stock_transformers_computes_the_same_logits_for_the_twin() -> None:
    from transformers import LlamaForCausalLM

    theirs = LlamaForCausalLM.from_pretrained(SAMPLES / "tiny-qkv", dtype=torch.float32)
    tokens = torch.randint(VOCAB_SIZE, (2, 200))
    with torch.inference_mode():
        expected = theirs(tokens).logits
        found = decoder_of("tiny-qkv")(tokens, torch.zeros(1, dtype=torch.int64))
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_predicts_held_out_text(name: str) -> None:
    tokenizer = Tokenizer.from_file(str(SAMPLES / name / "tokenizer.json"))
    tokens = tokenizer.encode(VALIDATION.read_text("utf-8")[:6000]).ids
    found = perplexity(DecoderSession(decoder_of(name), 512), tokens)
    assert math.isfinite(found)
    assert found < VOCAB_SIZE / 10
