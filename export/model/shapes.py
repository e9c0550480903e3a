"""Names and shapes of a decoder's parameters, known without building it."""

from __future__ import annotations

from collections.abc import Iterator

from onekv.export.model.spec import ModelSpec, Norm

Shape = tuple[int, ...]


def parameter_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """The shape of every parameter of `Decoder(spec)`, in the order of its state dict."""
    return dict(_parameters(spec))


def _parameters(spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    yield "embed_tokens.weight", (spec.vocab_size, spec.hidden_size)
    if spec.rope is None:
        yield "embed_positions.weight", (spec.max_positions, spec.hidden_size)
    for index in range(spec.layers):
        for name, shape in _layer(spec):
            yield f"layers.{index}.{name}", shape
    yield from _norm("norm", spec)
    if not spec.tied_head:
        yield "lm_head.weight", (spec.vocab_size, spec.hidden_size)


def _layer(spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    hidden, ffn = spec.hidden_size, spec.ffn_size
    query, rows = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    yield from _norm("input_layernorm", spec)
    yield from _linear("self_attn.k_proj", rows, hidden, spec.qkv_bias)
    if not spec.sharing.query_is_key:
        yield from _linear("self_attn.q_proj", query, hidden, spec.qkv_bias)
    if not spec.sharing.one_tensor:
        yield from _linear("self_attn.v_proj", rows, hidden, spec.qkv_bias)
    yield from _linear("self_attn.o_proj", hidden, query, spec.out_bias)
    yield from _norm("post_attention_layernorm", spec)
    yield from _linear("mlp.up_proj", ffn, hidden, spec.mlp_bias)
    if spec.gated_mlp:
        yield from _linear("mlp.gate_proj", ffn, hidden, spec.mlp_bias)
    yield from _linear("mlp.down_proj", hidden, ffn, spec.mlp_bias)


def _norm(name: str, spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (spec.hidden_size,)
    if spec.norm is Norm.LAYER:
        yield f"{name}.bias", (spec.hidden_size,)


def _linear(name: str, rows: int, columns: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)
