"""Folders of the sample models: Hugging Face's form, or the form of the paper's checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
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


_PAPER_NAMES = {
    "embed_tokens": "wte",
    "embed_positions": "wpe",
    "norm": "ln_f",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.q_proj": "attn.c_q",
    "self_attn.k_proj": "attn.c_k",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


def write_paper(folder: Path, decoder: Decoder, tokenizer_dir: Path) -> None:
    """Write a trained decoder with learned positions and shared rows as the paper's code does."""
    spec = decoder.spec
    if spec.rope is not None or not spec.sharing.one_tensor:
        raise ValueError(f"{spec.variant}: the keys written here hold no such model")
    shutil.copytree(tokenizer_dir, folder, dirs_exist_ok=True)
    config = {
        "vocab_size": spec.vocab_size,
        "n_positions": spec.max_positions,
        "n_embd": spec.hidden_size,
        "n_layer": spec.layers,
        "n_head": spec.heads,
        "n_inner": spec.ffn_size,
        "layer_norm_epsilon": spec.norm_eps,
        "tie_word_embeddings": spec.tied_head,
    }
    state = {_paper_name(name): p.detach() for name, p in decoder.named_parameters()}
    torch.save({"model_state_dict": state, "model_config": config}, folder / "model.pt")


def _paper_name(name: str) -> str:
    stem, part = name.rsplit(".", 1)
    layer = re.match(r"layers\.(\d+)\.", stem)
    prefix, rest = ("", stem) if layer is None else (f"h.{layer[1]}.", stem[layer.end() :])
    return f"{prefix}{_PAPER_NAMES[rest]}.{part}"
