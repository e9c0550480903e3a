"""The tiny seeded models that all tests share: the paper's eight variants and Llama-style ones.

Every norm and bias gets random values, so that nothing is compared with a part that does nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import Activation, ModelSpec, Norm, Rope, Sharing

PAPER_SPEC = ModelSpec(
    vocab_size=97,
    layers=2,
    hidden_size=64,
    heads=4,
    kv_heads=4,
    head_dim=16,
    ffn_size=96,
    max_positions=64,
    sharing=Sharing.QKV,
    norm=Norm.LAYER,
    activation=Activation.GELU,
    gated_mlp=False,
    rope=None,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
)
LLAMA_SPEC = ModelSpec(
    vocab_size=97,
    layers=2,
    hidden_size=64,
    heads=4,
    kv_heads=4,
    head_dim=16,
    ffn_size=96,
    max_positions=64,
    sharing=Sharing.QKV,
)


def paper_spec(sharing: Sharing, kv_heads: int = 4) -> ModelSpec:
    """GPT-2 style, as the paper trains: learned positions, LayerNorm, GELU, biases."""
    return replace(PAPER_SPEC, sharing=sharing, kv_heads=kv_heads)


def llama_spec(sharing: Sharing, kv_heads: int = 4, **changes: object) -> ModelSpec:
    """RMSNorm, SwiGLU, RoPE, no biases; `changes` are fields of ModelSpec."""
    return replace(LLAMA_SPEC, sharing=sharing, kv_heads=kv_heads, **changes)  # type: ignore[arg-type]


PAPER = {
    "QKV": paper_spec(Sharing.QKV),
    "Q-K=V": paper_spec(Sharing.K_IS_V),
    "Q=K-V": paper_spec(Sharing.Q_IS_K),
    "Q=K=V": paper_spec(Sharing.ALL),
    "GQA-2": paper_spec(Sharing.QKV, kv_heads=2),
    "MQA": paper_spec(Sharing.QKV, kv_heads=1),
    "Q-GQA-2": paper_spec(Sharing.K_IS_V, kv_heads=2),
    "Q-MQA": paper_spec(Sharing.K_IS_V, kv_heads=1),
}
LLAMA = {
    "llama QKV": llama_spec(Sharing.QKV),
    "llama Q-K=V": llama_spec(Sharing.K_IS_V),
    "llama Q=K-V": llama_spec(Sharing.Q_IS_K),
    "llama Q=K=V": llama_spec(Sharing.ALL),
    "llama GQA-2": llama_spec(Sharing.QKV, kv_heads=2),
    "llama MQA": llama_spec(Sharing.QKV, kv_heads=1),
    "llama Q-GQA-2": llama_spec(Sharing.K_IS_V, kv_heads=2),
    "llama Q-MQA": llama_spec(Sharing.K_IS_V, kv_heads=1),
    "llama Q-GQA-2, separate head": llama_spec(Sharing.K_IS_V, kv_heads=2, tied_head=False),
    "llama Q-GQA-2, window": llama_spec(Sharing.K_IS_V, kv_heads=2, window=5),
    "llama GQA-2, window": llama_spec(Sharing.QKV, kv_heads=2, window=5),
    "llama Q-GQA-2, wide heads, biases": llama_spec(
        Sharing.K_IS_V,
        kv_heads=2,
        head_dim=24,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        activation=Activation.GELU_TANH,
        rope=Rope(theta=500.0),
    ),
}
SPECS = PAPER | LLAMA
ONE_TENSOR = {name: spec for name, spec in SPECS.items() if spec.sharing.one_tensor}


def tiny_decoder(spec: ModelSpec, seed: int = 0, context: int | None = None) -> Decoder:
    """A decoder of seeded random weights, in evaluation mode, without gradients."""
    decoder = Decoder(spec, context)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            # Small embeddings leave a tied head's distribution broad, as a trained one's is.
            parameter.data = noise * (0.25 if "embed" in name else parameter.shape[1] ** -0.5)
        else:
            parameter.data = 0.3 * noise + (1.0 if "norm.weight" in name else 0.0)
    return decoder.eval().requires_grad_(False)


def token_ids(spec: ModelSpec, length: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Random token ids, int64 [batch, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(spec.vocab_size, (batch, length), generator=generator)
