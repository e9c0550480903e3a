"""Foldings that make a shared row easier to round and leave what the model computes unchanged.

Any change of basis of a kv head's rows can be undone in the query and output projections, as long
as it commutes with the rotation of keys: every invertible matrix without RoPE, one complex factor
per pair of dimensions with it. Weights are named as in the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onekv.errors import UsageError


@dataclass(frozen=True)
class Heads:
    """Query heads, kv heads, their width, the layers, and whether keys are rotated by RoPE."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rotated: bool


def fold_bias(state: Mapping[str, Tensor], heads: Heads) -> dict[str, Tensor]:
    """Move the bias of shared rows into the output's bias; rows then lie around zero.

    As keys' part it adds the same to all scores of a query, which softmax ignores; as values'
    part it adds itself to every output. The key's bias stays as zeros.

    Raises:
        UsageError: the model has RoPE, which the bias does not commute with, or no output bias.
    """
    _refuse_rotation(heads, "folding a bias")
    folded = dict(state)
    for prefix in _layers(heads):
        name = f"{prefix}k_proj.bias"
        if name not in folded:
            continue
        if f"{prefix}o_proj.bias" not in folded:
            raise UsageError(f"{prefix}o_proj has no bias that {name} could move into")
        values = folded[name].double().reshape(heads.kv_heads, 1, heads.head_dim)
        each = values.expand(-1, heads.heads // heads.kv_heads, -1).reshape(-1)
        weight, bias = folded[f"{prefix}o_proj.weight"], folded[f"{prefix}o_proj.bias"]
        moved = bias.double() + weight.double() @ each
        folded[f"{prefix}o_proj.bias"] = moved.to(bias.dtype)
        folded[name] = torch.zeros_like(folded[name])
    return folded


def hadamard_bases(heads: Heads) -> Tensor:
    """Orthogonal [layers, kv heads, D, D]: every new dimension is a mean of all with signs.

    Raises:
        UsageError: the model has RoPE, or head_dim is no power of two.
    """
    _refuse_rotation(heads, "a Hadamard rotation")
    size = heads.head_dim
    if size & (size - 1):
        raise UsageError(f"head_dim {size} is no power of two, which a Hadamard matrix needs")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    unit: Tensor = matrix / size**0.5
    return unit.expand(heads.layers, heads.kv_heads, size, size)


def scaling_bases(state: Mapping[str, Tensor], heads: Heads) -> Tensor:
    """Diagonal [layers, kv heads, D, D] that balances each dimension's size with its weight.

    An element that is rounded to the row's step does harm in proportion to what the query and
    the output projection multiply it with. The sum of that harm, at a step that grows with the
    row's norm, is least for factors (sensitivity / variance)^(1/4). With RoPE the two dimensions
    of a pair share one factor.
    """
    bases = []
    for prefix in _layers(heads):
        variance = _row_energy(state, prefix, heads)
        sensitivity = _sensitivity(state, prefix, heads)
        if heads.rotated:
            variance, sensitivity = _pair_means(variance), _pair_means(sensitivity)
        factors = (sensitivity / variance.clamp_min(1e-12)).clamp_min(1e-12) ** 0.25
        # Only ratios matter; the geometric mean keeps the rows' size.
        factors /= factors.log().mean(-1, keepdim=True).exp()
        bases.append(torch.diag_embed(factors))
    return torch.stack(bases)


def fold_bases(state: Mapping[str, Tensor], heads: Heads, bases: Tensor) -> dict[str, Tensor]:
    """Rows become A c for A = bases[layer, kv head]; queries and outputs take A's inverse.

    bases: [layers, kv heads, D, D], invertible; with RoPE they commute with its rotations.
    """
    folded = dict(state)
    for prefix, basis in zip(_layers(heads), bases.double()):
        inverse = torch.linalg.inv(basis)
        group = heads.heads // heads.kv_heads
        to_queries = inverse.mT.repeat_interleave(group, dim=0)
        for part in ("weight", "bias"):
            _turn_rows(folded, f"{prefix}k_proj.{part}", basis)
            _turn_rows(folded, f"{prefix}q_proj.{part}", to_queries)
        name = f"{prefix}o_proj.weight"
        columns = folded[name].double().unflatten(1, (heads.heads, heads.head_dim))
        back = inverse.repeat_interleave(group, dim=0)
        folded[name] = torch.einsum("ohd,hde->ohe", columns, back).flatten(1).to(folded[name].dtype)
    return folded


def _turn_rows(state: dict[str, Tensor], name: str, bases: Tensor) -> None:
    """Multiply the output dimensions of a projection, head by head."""
    if name in state:
        rows = state[name].double().unflatten(0, bases.shape[:2])
        turned = torch.einsum("hed,hd...->he...", bases, rows)
        state[name] = turned.flatten(0, 1).to(state[name].dtype)


def _row_energy(state: Mapping[str, Tensor], prefix: str, heads: Heads) -> Tensor:
    """Variance [kv heads, D] of the rows' dimensions over white inputs after the norm."""
    gain = state[prefix.replace("self_attn.", "input_layernorm.weight")].double()
    rows = state[f"{prefix}k_proj.weight"].double() * gain
    return rows.square().sum(1).reshape(heads.kv_heads, heads.head_dim)


def _sensitivity(state: Mapping[str, Tensor], prefix: str, heads: Heads) -> Tensor:
    """What a change of each dimension [kv heads, D] is multiplied with, queries and outputs."""
    shape = (heads.kv_heads, -1, heads.head_dim)
    gain = state[prefix.replace("self_attn.", "input_layernorm.weight")].double()
    queries = (state[f"{prefix}q_proj.weight"].double() * gain).square().sum(1)
    outputs = state[f"{prefix}o_proj.weight"].double().square().sum(0)
    parts = [part.reshape(shape).sum(1) for part in (queries, outputs)]
    return sum((part / part.mean(-1, keepdim=True) for part in parts), torch.zeros(()))


def _pair_means(values: Tensor) -> Tensor:
    """The mean of each RoPE pair (i, i + D/2) in both of its places."""
    low, high = values.chunk(2, dim=-1)
    mean = (low + high) / 2
    return torch.cat((mean, mean), dim=-1)


def _layers(heads: Heads) -> Iterator[str]:
    return (f"layers.{layer}.self_attn." for layer in range(heads.layers))


def _refuse_rotation(heads: Heads, what: str) -> None:
    if heads.rotated:
        raise UsageError(f"{what} does not commute with RoPE", "Scale pairs of dimensions instead.")
