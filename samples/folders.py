"""Hugging Face folders of the sample models."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from onekv.export.checkpoints.base import Checkpoint
from onekv.export.checkpoints.convert import convert
from onekv.export.model.decoder import Decoder
from onekv.export.tokenizer import load_tokenizer
from samples.vocabulary import END_OF_TEXT


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> None:
    """Write the tokenizer under a class name that transformers and onnxruntime-genai know."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def write_model(folder: Path, decoder: Decoder, tokenizer_dir: Path) -> None:
    """Write a trained decoder with float16 weights, in place of what `folder` held."""
    state = {name: p.detach().half() for name, p in decoder.named_parameters()}
    (end,) = load_tokenizer(tokenizer_dir).encode(END_OF_TEXT).ids
    checkpoint = Checkpoint(
        spec=decoder.spec,
        source=folder.name,
        format="trained",
        files=(),
        eos_token_ids=(end,),
        bos_token_id=end,
        sharing_evidence="trained so",
        obstacle=None if decoder.spec.sharing.one_tensor else "v_proj is trained apart",
        _read=lambda: state,
        _find_tokenizer=lambda: tokenizer_dir,
    )
    convert(checkpoint, folder, force=True)
