"""What a model is, as plain data. Nothing here imports torch, so planning stays instant."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from onekv.errors import CheckpointError


class Sharing(enum.StrEnum):
    """Which of query, key and value come from one projection (arXiv 2606.04032, section 3)."""

    QKV = "qkv"
    K_IS_V = "q-k=v"
    Q_IS_K = "q=k-v"
    ALL = "q=k=v"

    @property
    def one_tensor(self) -> bool:
        """Whether key and value are the same row, so that one tensor is cached."""
        return self in (Sharing.K_IS_V, Sharing.ALL)

    @property
    def query_is_key(self) -> bool:
        """Whether the query is the key's projection."""
        return self in (Sharing.Q_IS_K, Sharing.ALL)

    @property
    def cached_tensors(self) -> int:
        """Tensors cached per layer: 1 or 2."""
        return 1 if self.one_tensor else 2


class Norm(enum.StrEnum):
    LAYER = "layernorm"
    RMS = "rmsnorm"


class Activation(enum.StrEnum):
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    SILU = "silu"


@dataclass(frozen=True)
class Rope:
    """Rotary positions over head_dim, half-split pairing.

    `parameters` is the `rope_parameters` dictionary of a Hugging Face config as
    sorted items, so that the class stays hashable; `rope_type` and `rope_theta`
    are among them.
    """

    theta: float = 10_000.0
    kind: str = "default"
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a decoder-only transformer.

    `rope is None` means learned absolute positions. `window` limits how far back
    a token attends (0: no limit).
    """

    vocab_size: int
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    max_positions: int
    sharing: Sharing
    norm: Norm = Norm.RMS
    norm_eps: float = 1e-5
    activation: Activation = Activation.SILU
    gated_mlp: bool = True
    rope: Rope | None = field(default_factory=Rope)
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = True
    window: int = 0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise CheckpointError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.window < 0:
            raise CheckpointError(f"window is {self.window}; it must be at least 0")
        if self.heads % self.kv_heads:
            raise CheckpointError(
                f"{self.heads} query heads cannot be split over {self.kv_heads} kv heads"
            )
        if self.head_dim % 2:
            raise CheckpointError(f"head_dim {self.head_dim} is odd; rows are split in halves")
        if self.sharing.query_is_key and self.heads != self.kv_heads:
            raise CheckpointError(
                f"sharing {self.sharing} needs as many kv heads as query heads, "
                f"not {self.kv_heads} and {self.heads}"
            )

    @property
    def group_size(self) -> int:
        """Query heads per kv head."""
        return self.heads // self.kv_heads

    @property
    def variant(self) -> str:
        """The paper's name for this attention: QKV, Q-K=V, GQA-4, Q-MQA, ..."""
        if self.kv_heads == self.heads:
            return self.sharing.upper()
        prefix = "Q-" if self.sharing.one_tensor else ""
        return prefix + ("MQA" if self.kv_heads == 1 else f"GQA-{self.kv_heads}")

    def with_sharing(self, sharing: Sharing) -> ModelSpec:
        """The twin of this model that differs in its sharing alone."""
        return replace(self, sharing=sharing)


_POSITIVE = (
    "vocab_size",
    "layers",
    "hidden_size",
    "heads",
    "kv_heads",
    "head_dim",
    "ffn_size",
    "max_positions",
)
