"""llama.cpp's 4-bit formats of a Llama folder, measured as `onekv quality` measures.

Runs in an environment of its own (llama-cpp-python, gguf, safetensors) without onekv: writes a
float16 GGUF of the folder, quantises it, and prints perplexity, KL and top-1 against the float16
GGUF as JSON. Windows do not overlap, and every token but each window's first is scored.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

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
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}
_FORMATS = {
    "f16": None,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}


def write_gguf(folder: Path, path: Path) -> None:
    """A Llama folder as float16 GGUF without a vocabulary: token ids are measured."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for name, tensor in load_file(folder / "model.safetensors").items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        for part, count in heads.items():
            if part in name:
                # llama.cpp rotates neighbours: the halves of every head are interleaved.
                halves = tensor.reshape(config[count], 2, -1, tensor.shape[1])
                tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        kind = np.float32 if tensor.ndim == 1 else np.float16
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(tensor, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem, part = name.removeprefix("model.").rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{_NAMES[stem]}.{part}"
    _, layer, module = stem.split(".", 2)
    return f"blk.{layer}.{_NAMES[module]}.{part}"


def quantised(source: Path, target: Path, kind: int) -> Path:
    """`source` in another format, by llama.cpp itself."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = kind
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if code:
        raise SystemExit(f"llama_model_quantize gave {code}")
    return target


def log_probabilities(path: Path, windows: np.ndarray) -> np.ndarray:
    """[windows, window, vocab], float32."""
    model = llama_cpp.Llama(
        str(path), n_ctx=windows.shape[1], n_batch=windows.shape[1], logits_all=True, verbose=False
    )
    rows = []
    for window in windows:
        model.reset()
        model.eval(window.tolist())
        logits = np.array(model.scores[: len(window)], np.float64)
        logits -= logits.max(-1, keepdims=True)
        rows.append((logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32))
    return np.stack(rows)


def bits_per_weight(path: Path) -> float:
    """Bits of all tensors by their parameters."""
    tensors = gguf.GGUFReader(path).tensors
    return float(8 * sum(t.n_bytes for t in tensors) / sum(t.n_elements for t in tensors))


def measure(folder: Path, tokens: list[int], window: int) -> list[dict[str, Any]]:
    """One entry per format."""
    windows = np.array(tokens[: len(tokens) // window * window]).reshape(-1, window)
    targets = windows[:, 1:, None]
    found, want = [], None
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "f16.gguf"
        write_gguf(folder, source)
        for name, kind in _FORMATS.items():
            path = source if kind is None else quantised(source, source.with_stem(name), kind)
            got = log_probabilities(path, windows)[:, :-1]
            want = got if want is None else want
            wide = want.astype(np.float64)
            found.append(
                {
                    "format": name,
                    "bits_per_weight": bits_per_weight(path),
                    "perplexity": float(np.exp(-np.take_along_axis(got, targets, -1).mean())),
                    "kl": float((np.exp(wide) * (wide - got)).sum(-1).mean()),
                    "top1": float((got.argmax(-1) == want.argmax(-1)).mean()),
                }
            )
    return found


def main() -> None:
    """Print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokens", type=Path, help="a JSON list of token ids")
    parser.add_argument("--window", type=int, default=512)
    asked = parser.parse_args()
    tokens = json.loads(asked.tokens.read_text())
    print(json.dumps(measure(asked.folder, tokens, asked.window), indent=2))


if __name__ == "__main__":
    main()
