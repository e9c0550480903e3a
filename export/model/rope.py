"""Rotary tables by position, for every static RoPE type that transformers knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onekv.errors import CheckpointError
from onekv.export.model.spec import ModelSpec, Rope

# These depend on the length of the sequence at hand, which a fixed table cannot.
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def rotary_tables(spec: ModelSpec, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, head_dim/2], float32, attention factor included.

    Raises:
        CheckpointError: the model's rope type is unknown, lacks a parameter, or depends on
            the length.
    """
    if spec.rope is None:
        raise ValueError("a model with learned positions has no rotary tables")
    frequencies, factor = _frequencies(spec.rope, spec)
    # float64, so that a table's entries are the nearest float32 at any position.
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies.double())
    return (angles.cos() * factor).float(), (angles.sin() * factor).float()


def _frequencies(rope: Rope, spec: ModelSpec) -> tuple[Tensor, float]:
    if rope.kind == "default":
        exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
        return 1.0 / (rope.theta**exponents), 1.0
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if rope.kind in _LENGTH_DEPENDENT or rope.kind not in ROPE_INIT_FUNCTIONS:
        known = sorted(set(ROPE_INIT_FUNCTIONS) - set(_LENGTH_DEPENDENT) | {"default"})
        raise CheckpointError(
            f"rope type {rope.kind!r} has no fixed table of angles",
            f"Known types: {', '.join(known)}.",
        )
    parameters: dict[str, Any] = dict(rope.parameters)
    try:
        config = LlamaConfig(
            hidden_size=spec.hidden_size,
            num_attention_heads=spec.heads,
            head_dim=spec.head_dim,
            max_position_embeddings=spec.max_positions,
            rope_parameters={**parameters, "rope_type": rope.kind, "rope_theta": rope.theta},
        )
        frequencies, factor = ROPE_INIT_FUNCTIONS[rope.kind](config, torch.device("cpu"))
    except Exception as error:  # Each type checks its parameters in its own way.
        raise CheckpointError(
            f"rope type {rope.kind!r} has a parameter that is missing or wrong: {error}"
        ) from error
    if frequencies.numel() != spec.head_dim // 2:
        raise CheckpointError(
            f"rope type {rope.kind!r} turns {2 * frequencies.numel()} of {spec.head_dim} dims",
            "Only rotations over the whole head_dim are supported for this type.",
        )
    return frequencies, float(factor)
