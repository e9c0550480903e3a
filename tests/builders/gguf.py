"""A small GGUF as llama.cpp's converter writes it, through the gguf package's own writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from onekv.export.model.decoder import Decoder

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tensor_name(own: str) -> str:
    """The GGUF name of one of the decoder's parameters."""
    if not own.startswith("layers."):
        stem, part = own.rsplit(".", 1)
        head = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
        return f"{head[stem]}.{part}"
    _, layer, stem = own.split(".", 2)
    module, part = stem.rsplit(".", 1)
    return f"blk.{layer}.{_NAMES[module]}.{part}"


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbours, so its converter interleaves the halves of every head."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write(
    path: Path,
    decoder: Decoder,
    architecture: str = "llama",
    kv_heads: list[int] | None = None,
    **extra: str,
) -> Path:
    """Write float32 weights.

    kv_heads: a list in place of the decoder's number. extra: more strings, each dot of a key as
    two underscores.
    """
    spec = decoder.spec
    assert spec.rope is not None
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(spec.layers)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_feed_forward_length(spec.ffn_size)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(kv_heads or spec.kv_heads)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_rope_freq_base(spec.rope.theta)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in extra.items():
        writer.add_string(key.replace("__", "."), value)
    for name, tensor in decoder.state_dict().items():
        rows = tensor.numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            rows = permuted(rows, spec.heads if "q_proj" in name else spec.kv_heads)
        writer.add_tensor(tensor_name(name), np.ascontiguousarray(rows))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
