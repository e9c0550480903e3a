"""A checkpoint of the paper's 1.2B Q-K=V shape with seeded random weights, as a program: PATH.

Its keys are those of the authors' scripts, with the causal-mask buffer that they register in
every layer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, HEADS, FFN, VOCAB, POSITIONS = 22, 2048, 32, 8192, 50304, 2048


def parameter_count() -> int:
    """Parameters of the shape, masks not counted."""
    linears = 3 * HIDDEN * HIDDEN + 2 * HIDDEN * FFN + 4 * HIDDEN + FFN
    return VOCAB * HIDDEN + POSITIONS * HIDDEN + LAYERS * (linears + 4 * HIDDEN) + 2 * HIDDEN


def write(path: Path) -> None:
    """Write the checkpoint; it holds about 4.9 GB."""
    import torch
    from torch import Tensor

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    state = {"wte.weight": random(VOCAB, HIDDEN), "wpe.weight": random(POSITIONS, HIDDEN)}

    def norm(name: str) -> None:
        state.update({f"{name}.weight": 1 + random(HIDDEN), f"{name}.bias": random(HIDDEN)})

    def linear(name: str, rows: int, columns: int) -> None:
        state.update({f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)})

    for layer in (f"h.{index}" for index in range(LAYERS)):
        norm(f"{layer}.ln_1")
        state[f"{layer}.attn.bias"] = torch.ones(1, 1, POSITIONS, POSITIONS).tril()
        for name in ("c_q", "c_k", "c_proj"):
            linear(f"{layer}.attn.{name}", HIDDEN, HIDDEN)
        norm(f"{layer}.ln_2")
        linear(f"{layer}.mlp.c_fc", FFN, HIDDEN)
        linear(f"{layer}.mlp.c_proj", HIDDEN, FFN)
    norm("ln_f")
    content: dict[str, Any] = {
        "step": 0,
        "epoch": 0,
        "tokens_seen": 0,
        "model_state_dict": state,
        "model_config": {
            "vocab_size": VOCAB,
            "n_positions": POSITIONS,
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_inner": FFN,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        "train_config": {},
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
