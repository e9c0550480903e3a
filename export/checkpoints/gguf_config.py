"""A GGUF's metadata as the keys of a config.json, as transformers' reader takes them.

That reader loads the weights, but to ask it for the configuration takes ten seconds. What it
makes of the same metadata is compared when the weights are loaded.
"""

from __future__ import annotations

from typing import Any

from onekv.errors import CheckpointError
from onekv.export.checkpoints.gguf_header import Header

# The architectures of llama, mistral (which calls itself llama), and qwen2.
ARCHITECTURES = ("llama", "qwen2")

# llama.cpp's keys of what a model cannot do without, and of what has a default.
_NEEDED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
_HEAD_DIM = {"rope.dimension_count": "head_dim"}
_TOKENS = "tokenizer.ggml.tokens"
# The classes of Llama and Mistral have them where a file has none.
_ENDS = {"llama": (1, 2), "mistral": (1, 2), "qwen2": (None, None)}


def architecture_of(header: Header, source: str) -> str:
    """The file's own name of its architecture.

    Raises:
        CheckpointError: onekv does not read it, or transformers leaves out what it computes.
    """
    name = header.values.get("general.architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{source} has the architecture {name!r}, which onekv does not read",
            f"Known architectures: {', '.join(ARCHITECTURES)}.",
        )
    scaling = header.values.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none":
        raise CheckpointError(
            f"{source} scales its rotary positions ({scaling}), "
            "which transformers' GGUF reader leaves out",
            "Use the model's Hugging Face folder.",
        )
    return str(name)


def config_of(header: Header, architecture: str, source: str) -> dict[str, Any]:
    """The configuration that the metadata describe.

    Raises:
        CheckpointError: something is missing or differs by layer.
    """
    family = _family(header, architecture)
    keys = _NEEDED | _OPTIONAL | (_HEAD_DIM if architecture == "llama" else {})
    config: dict[str, Any] = {"model_type": family}
    for key, name in keys.items():
        full = f"{architecture}.{key}"
        if full in header.lengths:
            raise CheckpointError(
                f"{source} has a list as {full}; onekv needs the same in all layers",
                "Use another model.",
            )
        if full in header.values:
            config[name] = header.values[full]
        elif key in _NEEDED:
            raise CheckpointError(f"{source} has no {full}", "Copy or download it again.")
    if "vocab_size" not in config and _TOKENS in header.lengths:
        config["vocab_size"] = header.lengths[_TOKENS]
    for part, default in zip(("bos", "eos"), _ENDS[family]):
        key = f"tokenizer.ggml.{part}_token_id"
        config[f"{part}_token_id"] = header.values.get(key, default)
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    return config


def _family(header: Header, architecture: str) -> str:
    """Mistral's class is chosen by a model's name alone; its window is another."""
    named = architecture == "llama" and header.values.get("general.name") == "mistral"
    return "mistral" if named else architecture
