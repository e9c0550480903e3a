"""A checkpoint of the paper's 1.2B Q-K=V shape with seeded random weights, as a program: PATH.

Its keys are those of the authors' scripts, with the causal-mask buffer that they register in
every layer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onekv.export.model.paper import paper_model

SPEC = paper_model("1.2b/q-k=v")
HIDDEN, FFN, POSITIONS = SPEC.hidden_size, SPEC.ffn_size, SPEC.max_positions


def write(path: Path) -> None:
    """Write the checkpoint; it holds about 4.9 GB."""
    import torch
    from torch import Tensor

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    state = {"wte.weight": random(SPEC.vocab_size, HIDDEN), "wpe.weight": random(POSITIONS, HIDDEN)}

    def norm(name: str) -> None:
        state.update({f"{name}.weight": 1 + random(HIDDEN), f"{name}.bias": random(HIDDEN)})

    def linear(name: str, rows: int, columns: int) -> None:
        state.update({f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)})

    for layer in (f"h.{index}" for index in range(SPEC.layers)):
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
            "vocab_size": SPEC.vocab_size,
            "n_positions": POSITIONS,
            "n_embd": HIDDEN,
            "n_layer": SPEC.layers,
            "n_head": SPEC.heads,
            "n_inner": FFN,
            "layer_norm_epsilon": SPEC.norm_eps,
            "tie_word_embeddings": True,
        },
        "train_config": {},
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
