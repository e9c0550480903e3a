"""The configuration class that transformers keeps for the type "onekv"."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from onekv.export.model.config import MODEL_TYPE, spec_from_config
from onekv.export.model.spec import ModelSpec, Norm, Sharing


class OnekvConfig(PreTrainedConfig):
    """Llama's keys, and `sharing`, `position_embedding`, `norm`, `gated_mlp` beside them.

    The keys that size the model have no default, as `onekv.export.model.config` demands.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012

    vocab_size: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-6
    rope_parameters: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_out_bias: bool | None = None
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    sharing: str = str(Sharing.QKV)
    position_embedding: str = "rope"
    norm: str = str(Norm.RMS)
    gated_mlp: bool = True
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def spec(self) -> ModelSpec:
        """The model that the keys describe.

        Raises:
            CheckpointError: a key is missing, absurd, or asks for what the decoder has not.
        """
        return spec_from_config(self.to_dict())


def register_config() -> None:
    """Make AutoConfig know the type."""
    AutoConfig.register(MODEL_TYPE, OnekvConfig, exist_ok=True)
