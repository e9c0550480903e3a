"""Hugging Face's configuration keys to a `ModelSpec` and back, without importing transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onekv.errors import CheckpointError
from onekv.export.model.spec import Activation, ModelSpec, Norm, Rope, Sharing
from onekv.export.model.values import choice, flag, integer, number

MODEL_TYPE = "onekv"
"""The `model_type` of a folder whose model may share projections."""

PLAIN_TYPES = ("llama", "mistral", "qwen2")
KNOWN_TYPES = (*PLAIN_TYPES, MODEL_TYPE)

_MOST_LAYERS = 4096

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
}
_ABSENT_KV_HEADS = {"mistral": 8, "qwen2": 32}
_EPSILON_KEYS = {Norm.RMS: "rms_norm_eps", Norm.LAYER: "layer_norm_eps"}


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The specification that a parsed `config.json` describes.

    A key that is absent has the default that transformers gives it. Sharing is what the
    configuration declares (`qkv` when it says nothing); readers prove it from the tensors.

    Raises:
        CheckpointError: an unknown `model_type`, or a key whose value is missing, of the
            wrong type, absurd, or describes something that the decoder does not compute.
    """
    family = _family(config)
    own = config if family == MODEL_TYPE else {}
    norm = choice(own, "norm", Norm.RMS)
    heads, hidden = integer(config, "num_attention_heads"), integer(config, "hidden_size")
    in_bias, out_bias, mlp_bias = _biases(config, family)
    return ModelSpec(
        vocab_size=integer(config, "vocab_size"),
        layers=integer(config, "num_hidden_layers", largest=_MOST_LAYERS),
        hidden_size=hidden,
        heads=heads,
        kv_heads=_kv_heads(config, family, heads),
        head_dim=integer(config, "head_dim", hidden // heads),
        ffn_size=integer(config, "intermediate_size"),
        max_positions=integer(config, "max_position_embeddings"),
        sharing=choice(config, "sharing", Sharing.QKV),
        norm=norm,
        norm_eps=number(config, _EPSILON_KEYS[norm], 1e-6),
        activation=_activation(config),
        gated_mlp=flag(own, "gated_mlp", default=True),
        rope=_rope(config),
        qkv_bias=in_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        tied_head=flag(config, "tie_word_embeddings"),
        window=_window(config, family),
    )


def config_from_spec(spec: ModelSpec) -> dict[str, Any]:
    """The `config.json` keys of a model: the inverse of `spec_from_config`.

    A model that llama, mistral or qwen2 describes in full gets that type, so that every
    tool reads it; any other gets "onekv".
    """
    for family in PLAIN_TYPES:
        config = _llama_keys(spec, family)
        if replace(spec_from_config(config), rope=spec.rope) == spec and spec.rope is not None:
            return config
    return onekv_config(spec)


def onekv_config(spec: ModelSpec) -> dict[str, Any]:
    """The keys of a model of type "onekv": Llama's own, and those it has no word for."""
    return _llama_keys(spec, MODEL_TYPE) | {
        "sharing": str(spec.sharing),
        "position_embedding": "learned" if spec.rope is None else "rope",
        "norm": str(spec.norm),
        "gated_mlp": spec.gated_mlp,
        "attention_bias": spec.qkv_bias,
        "attention_out_bias": spec.out_bias,
        "sliding_window": spec.window or None,
    }


def _llama_keys(spec: ModelSpec, family: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.ffn_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.max_positions,
        "hidden_act": next(name for name, kind in _ACTIVATIONS.items() if kind is spec.activation),
        _EPSILON_KEYS[spec.norm]: spec.norm_eps,
        "tie_word_embeddings": spec.tied_head,
    }
    if family in ("llama", MODEL_TYPE):
        config |= {"attention_bias": spec.qkv_bias, "mlp_bias": spec.mlp_bias}
    if family == "mistral":
        config["sliding_window"] = spec.window or None
    if spec.rope is not None:
        own = {"rope_type": spec.rope.kind, "rope_theta": spec.rope.theta}
        config["rope_parameters"] = dict(spec.rope.parameters) | own
        # Where transformers before 5 looks: without these it assumes a base of 10,000.
        config["rope_theta"] = spec.rope.theta
        if spec.rope.kind != "default":
            config["rope_scaling"] = config["rope_parameters"]
    return config


def _family(config: Mapping[str, Any]) -> str:
    family = config.get("model_type")
    if family not in KNOWN_TYPES:
        raise CheckpointError(
            f"config.json has model_type {family!r}, which onekv does not read",
            f"Known types: {', '.join(KNOWN_TYPES)}.",
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            "config.json has a quantization_config: the weights are quantised already",
            "Use the checkpoint as it was before quantisation; onekv quantises at export.",
        )
    return str(family)


def _kv_heads(config: Mapping[str, Any], family: str, heads: int) -> int:
    absent = heads if "num_key_value_heads" in config else _ABSENT_KV_HEADS.get(family, heads)
    return integer(config, "num_key_value_heads", absent)


def _biases(config: Mapping[str, Any], family: str) -> tuple[bool, bool, bool]:
    """Whether there are biases on q, k and v; on the output projection; in the MLP."""
    if family == "qwen2":
        return True, False, False
    if family == "mistral":
        return False, False, False
    attention = flag(config, "attention_bias")
    out = flag(config, "attention_out_bias", default=attention)
    return attention, out, flag(config, "mlp_bias")


def _activation(config: Mapping[str, Any]) -> Activation:
    name = config.get("hidden_act", "silu")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise CheckpointError(
            f"config.json has hidden_act {name!r}, which onekv does not compute",
            f"Known activations: {', '.join(_ACTIVATIONS)}.",
        )
    return _ACTIVATIONS[name]


def _window(config: Mapping[str, Any], family: str) -> int:
    """The sliding window that all layers have; 0 when no layer has one."""
    positions = integer(config, "max_position_embeddings")
    if family == "llama" or (family == "qwen2" and not flag(config, "use_sliding_window")):
        return 0
    default = None if family == MODEL_TYPE else 4096
    window = config.get("sliding_window", default)
    if window is None:
        return 0
    size = integer(config, "sliding_window", default)
    if family == "qwen2" and integer(config, "max_window_layers", 28, largest=_MOST_LAYERS) > 0:
        raise CheckpointError(
            "config.json gives only some layers a sliding window",
            "onekv needs the same window in all layers: set use_sliding_window to false if the "
            "context you need is shorter than the window.",
        )
    return size if size < positions else 0


def _rope(config: Mapping[str, Any]) -> Rope | None:
    """RoPE of transformers 5 (`rope_parameters`) or before (`rope_theta`, `rope_scaling`)."""
    if config.get("model_type") == MODEL_TYPE and config.get("position_embedding") == "learned":
        return None
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json has rope parameters that are no table: {found!r}")
    theta = number(found, "rope_theta", number(config, "rope_theta", 10_000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    parameters = {k: v for k, v in found.items() if k != "type" and v is not None}
    parameters |= {"rope_type": kind, "rope_theta": theta}
    if kind in ("llama3", "yarn"):
        original = config.get("original_max_position_embeddings", config["max_position_embeddings"])
        parameters.setdefault("original_max_position_embeddings", original)
    for key, value in parameters.items():
        if not isinstance(value, float | int | str | bool):
            raise CheckpointError(f"config.json has rope parameter {key} {value!r}, not a scalar")
    part = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if part not in (None, 1.0):
        raise CheckpointError(f"config.json rotates only a part of head_dim: {part!r}")
    return Rope(theta, str(kind), tuple(sorted(parameters.items())))
