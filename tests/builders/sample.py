"""A tiny seeded model with a tokenizer of its own: what a person exports, small."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from onekv.export.model.spec import Sharing
from tests.builders.folders import write_onekv
from tests.specs import llama_spec, tiny_decoder

VOCAB = 300


def write_sample(folder: Path, seed: int = 0, sharing: Sharing = Sharing.K_IS_V) -> Path:
    """A Q-K=V, GQA folder that transformers, onekv and onnxruntime-genai can read."""
    spec = llama_spec(sharing, kv_heads=2, vocab_size=VOCAB, max_positions=128)
    write_onekv(folder, tiny_decoder(spec, seed))
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": VOCAB - 1}))
    return folder


def byte_tokenizer() -> Tokenizer:
    """One token per byte, so that every character outside ASCII is split over tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
