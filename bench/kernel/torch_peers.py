"""torch's scaled_dot_product_attention, and ExecuTorch's sdpa_with_kv_cache called from torch."""

from __future__ import annotations

import importlib.util

import torch

from onekv.bench.kernel.contest import Shape, Step
from onekv.runtime.quiet import quiet


def torch_steps(shape: Shape) -> list[Step]:
    """SDPA over two fp32 tensors that hold the context and the new tokens, causal."""
    q = torch.randn(1, shape.heads, shape.new_tokens, shape.head_dim)
    keys, values = (torch.randn(1, shape.kv_heads, shape.length, shape.head_dim) for _ in "kv")
    visible = torch.ones(shape.new_tokens, shape.length, dtype=torch.bool).tril(shape.context)
    mask = None if shape.context == 0 or shape.new_tokens == 1 else visible

    def step() -> object:
        torch.set_num_threads(shape.threads)
        return torch.nn.functional.scaled_dot_product_attention(
            q, keys, values, mask, is_causal=shape.context == 0, enable_gqa=True
        )

    return [step]


def has_executorch() -> bool:
    """Whether the ExecuTorch package is installed; it is an extra of its own."""
    return importlib.util.find_spec("executorch") is not None


def executorch_steps(shape: Shape) -> list[Step]:
    """ExecuTorch's operator over two fp32 caches, in the torch library that its wheel ships.

    Its threads are those of the process: as many as the machine has. The result is valid for
    2 threads on a machine of two, or for 1 where the process is pinned.
    """
    with quiet():
        from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    q = torch.randn(1, shape.new_tokens, shape.heads, shape.head_dim)
    new = torch.randn(1, shape.new_tokens, shape.kv_heads, shape.head_dim)
    size = 8 * shape.length * shape.kv_heads * shape.head_dim

    def make() -> Step:
        keys, values = (torch.randn(1, shape.length, shape.kv_heads, shape.head_dim) for _ in "kv")
        return lambda: torch.ops.llama.sdpa_with_kv_cache(
            q, new, new, keys, values, shape.context, shape.new_tokens, None, 0.0, True, None
        )

    return [make() for _ in range(shape.copies(size))]
