"""How the authors' files lay out the projections of each variant, and where a parameter lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onekv.errors import CheckpointError
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.model.values import integer

if TYPE_CHECKING:
    from torch import Tensor

Q, K, V = "q_proj", "k_proj", "v_proj"

_NAMES = {
    "embed_tokens": "wte",
    "embed_positions": "wpe",
    "norm": "ln_f",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
    "lm_head": "lm_head",
}
_PARAMETER = re.compile(r"(?:layers\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<part>weight|bias)")


@dataclass(frozen=True)
class Place:
    """Rows `start` to `stop` of the tensor that the file calls `key`."""

    key: str
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The projections that each module of an attention block holds, in the order of its rows."""

    sharing: Sharing
    kv_heads: int
    modules: Mapping[str, tuple[str, ...]]

    def places(self, spec: ModelSpec) -> dict[str, Place]:
        """Where every parameter of the decoder lies in the file."""
        return dict(self._places(spec))

    def _places(self, spec: ModelSpec) -> Iterator[tuple[str, Place]]:
        rows = {Q: spec.heads * spec.head_dim, K: spec.kv_heads * spec.head_dim}
        rows[V] = rows[K]
        for name, shape in parameter_shapes(spec).items():
            match = _PARAMETER.fullmatch(name)
            assert match is not None, name
            layer, module, part = match["layer"], match["module"], match["part"]
            prefix = "" if layer is None else f"h.{layer}."
            projection = module.removeprefix("self_attn.")
            if projection not in rows:
                yield name, Place(f"{prefix}{_NAMES[module]}.{part}", 0, shape[0])
                continue
            fused, order = next(item for item in self.modules.items() if projection in item[1])
            start = sum(rows[other] for other in order[: order.index(projection)])
            yield name, Place(f"{prefix}attn.{fused}.{part}", start, start + rows[projection])


def find_layout(tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str) -> Layout:
    """The variant that the projections of the first layer have.

    Raises:
        CheckpointError: no variant of the paper has these projections or this many rows.
    """
    rows = {
        key.split(".")[3]: tensor.shape[0]
        for key, tensor in tensors.items()
        if re.fullmatch(r"h\.0\.attn\.c_(attn|q|k|kv)\.weight", key)
    }
    hidden, heads = integer(config, "n_embd"), integer(config, "n_head")
    if hidden % heads:
        raise CheckpointError(f"{source}: n_embd {hidden} is not a multiple of n_head {heads}")
    head_dim = hidden // heads
    found = tuple(sorted(rows))
    if found == ("c_attn",):
        return Layout(Sharing.QKV, heads, {"c_attn": (Q, K, V)})
    if found == ("c_k",):
        return Layout(Sharing.ALL, heads, {"c_k": (K,)})
    if found == ("c_kv",):
        return Layout(Sharing.Q_IS_K, heads, {"c_kv": (K, V)})
    if found == ("c_k", "c_q"):
        groups = _groups(rows["c_k"], head_dim, "c_k", source)
        return Layout(Sharing.K_IS_V, groups, {"c_q": (Q,), "c_k": (K,)})
    if found == ("c_kv", "c_q") and rows["c_kv"] == head_dim:
        return Layout(Sharing.K_IS_V, 1, {"c_q": (Q,), "c_kv": (K,)})
    if found == ("c_kv", "c_q"):
        groups = _groups(rows["c_kv"], 2 * head_dim, "c_kv", source)
        return Layout(Sharing.QKV, groups, {"c_q": (Q,), "c_kv": (K, V)})
    raise CheckpointError(
        f"{source}: the first layer's attention has the projections {', '.join(found) or 'none'}",
        "The paper's variants have c_attn, c_q and c_k, c_kv, c_k, or c_q and c_kv.",
    )


def _groups(rows: int, per_group: int, module: str, source: str) -> int:
    if rows == 0 or rows % per_group:
        raise CheckpointError(
            f"{source}: h.0.attn.{module}.weight has {rows} rows, no multiple of {per_group} "
            "(head_dim from n_embd and n_head)"
        )
    return rows // per_group
