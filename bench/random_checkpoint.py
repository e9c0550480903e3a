"""A checkpoint of the paper's 1.2B Q-K=V shape with seeded random weights, as its authors save one.

Run as a program, so that its memory does not count towards what is measured afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

CONFIG = {
    "vocab_size": 50304,
    "n_positions": 2048,
    "n_embd": 2048,
    "n_layer": 22,
    "n_head": 32,
    "n_inner": 8192,
    "layer_norm_epsilon": 1e-5,
}


def build(config: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """What the authors' scripts save: state dict and configuration, float32."""
    random = torch.Generator().manual_seed(seed)
    hidden, inner = config["n_embd"], config["n_inner"]

    def linear(rows: int, columns: int) -> dict[str, torch.Tensor]:
        weight = torch.randn(rows, columns, generator=random).mul_(columns**-0.5)
        return {"weight": weight, "bias": torch.randn(rows, generator=random).mul_(0.02)}

    def norm() -> dict[str, torch.Tensor]:
        return {"weight": torch.ones(hidden), "bias": torch.zeros(hidden)}

    modules = {"ln_f": norm()}
    for layer in range(config["n_layer"]):
        at = f"h.{layer}"
        modules[f"{at}.ln_1"], modules[f"{at}.ln_2"] = norm(), norm()
        for name in ("c_q", "c_k", "c_proj"):
            modules[f"{at}.attn.{name}"] = linear(hidden, hidden)
        modules[f"{at}.mlp.c_fc"] = linear(inner, hidden)
        modules[f"{at}.mlp.c_proj"] = linear(hidden, inner)
    state = {f"{m}.{part}": t for m, parts in modules.items() for part, t in parts.items()}
    for name, rows in (("wte", config["vocab_size"]), ("wpe", config["n_positions"])):
        state[f"{name}.weight"] = torch.randn(rows, hidden, generator=random).mul_(0.02)
    return {"step": 0, "model_state_dict": state, "model_config": config, "train_config": {}}


if __name__ == "__main__":
    torch.save(build(CONFIG), Path(sys.argv[1]))
