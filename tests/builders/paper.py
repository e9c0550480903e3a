"""Checkpoints as the paper's training scripts save them, stated here without onekv's own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec


def model_config(spec: ModelSpec) -> dict[str, Any]:
    """What dataclasses.asdict(ModelConfig()) holds."""
    return {
        "vocab_size": spec.vocab_size,
        "n_positions": spec.max_positions,
        "n_embd": spec.hidden_size,
        "n_layer": spec.layers,
        "n_head": spec.heads,
        "n_inner": spec.ffn_size,
        "layer_norm_epsilon": spec.norm_eps,
        "resid_pdrop": 0.1,
        "use_flash_attention": True,
        "tie_word_embeddings": True,
    }


def projections(
    spec: ModelSpec, own: dict[str, Tensor], layer: int, part: str
) -> dict[str, Tensor]:
    """The attention modules of a variant, fused the way the scripts fuse them."""
    q, k, v = (own.get(f"layers.{layer}.self_attn.{name}_proj.{part}") for name in ("q", "k", "v"))
    if spec.variant == "QKV":
        return {"c_attn": torch.cat([q, k, v])}
    if spec.variant == "Q=K-V":
        return {"c_kv": torch.cat([k, v])}
    if spec.variant == "Q=K=V":
        return {"c_k": k}
    if spec.variant == "Q-MQA":
        return {"c_q": q, "c_kv": k}
    if spec.sharing.one_tensor:
        return {"c_q": q, "c_k": k}
    return {"c_q": q, "c_kv": torch.cat([k, v])}


def model_state(decoder: Decoder, prefix: str = "") -> dict[str, Tensor]:
    """The model's state dict, with the causal-mask buffer that the scripts register."""
    spec, own = decoder.spec, decoder.state_dict()
    state = {"wte.weight": own["embed_tokens.weight"], "wpe.weight": own["embed_positions.weight"]}
    size = spec.max_positions
    for i in range(spec.layers):
        state[f"h.{i}.attn.bias"] = torch.tril(torch.ones(1, 1, size, size))
        for part in ("weight", "bias"):
            for name, tensor in projections(spec, own, i, part).items():
                state[f"h.{i}.attn.{name}.{part}"] = tensor
            for theirs, ours in {
                "ln_1": "input_layernorm",
                "attn.c_proj": "self_attn.o_proj",
                "ln_2": "post_attention_layernorm",
                "mlp.c_fc": "mlp.up_proj",
                "mlp.c_proj": "mlp.down_proj",
            }.items():
                state[f"h.{i}.{theirs}.{part}"] = own[f"layers.{i}.{ours}.{part}"]
    state |= {"ln_f.weight": own["norm.weight"], "ln_f.bias": own["norm.bias"]}
    return {prefix + key: tensor.clone() for key, tensor in state.items()}


def checkpoint(decoder: Decoder, prefix: str = "") -> dict[str, Any]:
    """Everything that the scripts save, the optimizer's state included."""
    return {
        "step": 7,
        "epoch": 0,
        "tokens_seen": 1024,
        "model_state_dict": model_state(decoder, prefix),
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "val_metrics": {"loss": 3.0, "perplexity": 20.1},
        "model_config": model_config(decoder.spec),
        "train_config": {"learning_rate": 3e-4, "output_dir": "outputs"},
    }


def save(path: Path, content: object) -> Path:
    """Write `content` with torch.save and give the path back."""
    torch.save(content, path)
    return path
