"""The models of the paper by name: the one table of its shapes (arXiv 2606.04032, section 4)."""

from __future__ import annotations

from dataclasses import replace

from onekv.errors import UsageError
from onekv.export.model.spec import Activation, ModelSpec, Norm, Sharing

_SMALL = ModelSpec(
    vocab_size=50_304,
    layers=20,
    hidden_size=1024,
    heads=16,
    kv_heads=16,
    head_dim=64,
    ffn_size=4096,
    max_positions=2048,
    sharing=Sharing.QKV,
    norm=Norm.LAYER,
    activation=Activation.GELU,
    gated_mlp=False,
    rope=None,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
)
SIZES = {
    "300m": _SMALL,
    "1.2b": replace(_SMALL, layers=22, hidden_size=2048, heads=32, kv_heads=32, ffn_size=8192),
}
"""The QKV model of each size."""

PREFIX = "paper:"
"""What a model's name starts with where a path could stand as well."""


def variants(size: ModelSpec) -> dict[str, ModelSpec]:
    """Every variant of a size by the paper's name in lower case, such as "q-gqa-4"."""
    shared = [size.with_sharing(sharing) for sharing in Sharing]
    divisors = [n for n in range(1, size.heads) if size.heads % n == 0]
    grouped = [
        replace(size, sharing=sharing, kv_heads=heads)
        for sharing in (Sharing.QKV, Sharing.K_IS_V)
        for heads in divisors
    ]
    return {spec.variant.lower(): spec for spec in (*shared, *grouped)}


def paper_model(name: str) -> ModelSpec:
    """The model that a name such as "1.2b/q-gqa-8" stands for, with or without "paper:".

    Raises:
        UsageError: no size or no variant has that name.
    """
    size, _, variant = name.lower().removeprefix(PREFIX).partition("/")
    if size not in SIZES:
        raise UsageError(
            f"{name}: the paper has no size {size!r}",
            f"Give {PREFIX}SIZE/VARIANT with a size of {', '.join(SIZES)}.",
        )
    known = variants(SIZES[size])
    if variant not in known:
        raise UsageError(
            f"{name}: {size} has no variant {variant!r}", f"Its variants: {', '.join(known)}."
        )
    return known[variant]
