"""Hugging Face folders, written with safetensors and json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from onekv.export.model.config import onekv_config
from onekv.export.model.decoder import Decoder


def onekv_tensors(decoder: Decoder) -> dict[str, Tensor]:
    """A decoder's tensors under the names that a folder of type onekv has."""
    return {f"model.{name}": tensor for name, tensor in decoder.state_dict().items()}


def llama_config(decoder: Decoder) -> dict[str, Any]:
    """The configuration that transformers writes for a plain Llama."""
    spec = decoder.spec
    assert spec.rope is not None
    return {
        "model_type": "llama",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.ffn_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm_eps,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope.theta},
        "tie_word_embeddings": spec.tied_head,
    }


def write_onekv(folder: Path, decoder: Decoder) -> Path:
    """A whole folder of type onekv, in one file."""
    return write_folder(folder, onekv_config(decoder.spec), onekv_tensors(decoder))


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], shards: int = 1
) -> Path:
    """config.json and safetensors, split by tensor over `shards` files with an index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    plain = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    if shards == 1:
        save_file(plain, folder / "model.safetensors", {"format": "pt"})
        return folder
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    places = {key: names[i % shards] for i, key in enumerate(plain)}
    for name in names:
        save_file({k: t for k, t in plain.items() if places[k] == name}, folder / name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
