"""What is trained and how: the shapes that are compared, and the settings they share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onekv.export.model.spec import Activation, ModelSpec, Norm, Sharing
from samples.vocabulary import VOCAB_SIZE


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; every configuration is trained with the same."""

    tokens: int
    seed: int = 0
    batch: int = 4
    context: int = 512
    learning_rate: float = 1.5e-3
    warmup: float = 0.05
    final_rate: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0

    @property
    def steps(self) -> int:
        """Optimizer steps that see `tokens` tokens."""
        return max(1, self.tokens // (self.batch * self.context))


_TINY = ModelSpec(
    vocab_size=VOCAB_SIZE,
    layers=4,
    hidden_size=256,
    heads=4,
    kv_heads=2,
    head_dim=64,
    ffn_size=512,
    max_positions=512,
    sharing=Sharing.K_IS_V,
)

CONFIGURATIONS: dict[str, ModelSpec] = {
    "tiny": _TINY,
    "tiny-qkv": _TINY.with_sharing(Sharing.QKV),
    # The nearest whole width: 555 gives 1,024 parameters more than tiny-qkv has.
    "tiny-wide": replace(_TINY, ffn_size=555),
    "tiny-mqa": replace(_TINY, kv_heads=1),
}
# The paper's own architecture in tiny's size: learned positions, no RoPE, a bias everywhere.
WITHOUT_ROPE: dict[str, ModelSpec] = {
    "tiny-paper": replace(
        _TINY,
        norm=Norm.LAYER,
        activation=Activation.GELU,
        gated_mlp=False,
        ffn_size=768,
        rope=None,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
    ),
}
SHIPPED = ("tiny", "tiny-qkv")
SEEDS = (0, 1, 2)
TOKENS = 1_200_000
SHIPPED_TOKENS = 5_000_000
