"""A checkpoint of a paper's model with seeded random weights, as a program: PATH [NAME].

NAME is as for `onekv plan` without `paper:`; 1.2b/q-k=v unless given.

Its keys are those of the authors' scripts, with the causal-mask buffer that they register in
every layer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onekv.errors import UsageError
from onekv.export.model.paper import paper_model
from onekv.export.model.spec import ModelSpec, Sharing

SPEC = paper_model("1.2b/q-k=v")


def write(path: Path, spec: ModelSpec = SPEC) -> None:
    """Write the checkpoint of a model with as many kv heads as heads: 4.9 GB at 1.2B.

    Raises:
        UsageError: a variant whose projections these keys do not hold.
    """
    if spec.sharing not in (Sharing.QKV, Sharing.K_IS_V) or spec.kv_heads != spec.heads:
        raise UsageError(f"{spec.variant}: only QKV and Q-K=V are written")
    import torch
    from torch import Tensor

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    width, ffn, positions = spec.hidden_size, spec.ffn_size, spec.max_positions
    state = {"wte.weight": random(spec.vocab_size, width), "wpe.weight": random(positions, width)}

    def norm(name: str) -> None:
        state.update({f"{name}.weight": 1 + random(width), f"{name}.bias": random(width)})

    def linear(name: str, rows: int, columns: int) -> None:
        state.update({f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)})

    one = spec.sharing is Sharing.K_IS_V
    projections = {"c_q": width, "c_k": width} if one else {"c_attn": 3 * width}
    for layer in (f"h.{index}" for index in range(spec.layers)):
        norm(f"{layer}.ln_1")
        state[f"{layer}.attn.bias"] = torch.ones(1, 1, positions, positions).tril()
        for name, rows in {**projections, "c_proj": width}.items():
            linear(f"{layer}.attn.{name}", rows, width)
        norm(f"{layer}.ln_2")
        linear(f"{layer}.mlp.c_fc", ffn, width)
        linear(f"{layer}.mlp.c_proj", width, ffn)
    norm("ln_f")
    content: dict[str, Any] = {
        "step": 0,
        "epoch": 0,
        "tokens_seen": 0,
        "model_state_dict": state,
        "model_config": {
            "vocab_size": spec.vocab_size,
            "n_positions": positions,
            "n_embd": width,
            "n_layer": spec.layers,
            "n_head": spec.heads,
            "n_inner": ffn,
            "layer_norm_epsilon": spec.norm_eps,
            "tie_word_embeddings": True,
        },
        "train_config": {},
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]), paper_model(sys.argv[2]) if len(sys.argv) > 2 else SPEC)
