"""Reads the checkpoints of the paper's authors (arXiv 2606.04032): torch archives, GPT-2 names.

Which projections exist, and how many rows they have, says what the variant is. Names of
scripts and files are no evidence: the script called Q-GQA-4 at 300M trains 8 groups.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onekv.errors import CheckpointError
from onekv.export.checkpoints.base import Checkpoint, check_shapes, folder_with_tokenizer
from onekv.export.checkpoints.paper_layout import Layout, Place, find_layout
from onekv.export.checkpoints.sharing import prove
from onekv.export.checkpoints.torch_archive import load_archive
from onekv.export.model.shapes import Shape, parameter_shapes
from onekv.export.model.spec import Activation, ModelSpec, Norm
from onekv.export.model.values import flag, integer, number

# The end of a document in GPT-2's vocabulary, which all of the authors' models use.
_GPT2_VOCAB, _GPT2_END = 50257, 50256
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_BUFFER = re.compile(r"h\.\d+\.attn\.\w*(bias|mask|cache)\w*")


def open_paper(path: Path) -> Checkpoint:
    """Map a `.pt` file, find its variant from its tensors' shapes, and check all of them.

    Raises:
        CheckpointError: the file is truncated, holds code, is no checkpoint of this kind, or
            contradicts its own configuration.
    """
    config, tensors = _model_of(load_archive(path), path.name)
    layout = find_layout(tensors, config, path.name)
    declared = _spec(config, tensors, layout, path.name)
    _drop_tied_head(tensors, declared, path.name)
    places = layout.places(declared)
    _check(declared, places, tensors, path)
    views = {name: _view(tensors, place) for name, place in places.items()}
    proof = prove(
        declared,
        f"attention has {' and '.join(layout.modules)} only",
        lambda layer: _difference(views, layer),
    )
    kept = {name: views[name] for name in parameter_shapes(proof.spec)}
    return Checkpoint(
        spec=proof.spec,
        source=path.name,
        format="paper",
        files=(path,),
        eos_token_ids=(_GPT2_END,) if declared.vocab_size >= _GPT2_VOCAB else (),
        bos_token_id=None,
        sharing_evidence=proof.evidence,
        obstacle=proof.obstacle,
        _read=lambda: dict(kept),
        _find_tokenizer=lambda: folder_with_tokenizer(path.parent),
    )


def _model_of(
    content: Mapping[str, Any], source: str
) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The configuration, and the parameters by their plain names; never the optimizer's state."""
    for key in ("model_state_dict", "model_config"):
        if not isinstance(content.get(key), Mapping):
            raise CheckpointError(
                f"{source} has no {key}; it holds {', '.join(map(str, content)) or 'nothing'}",
                "A checkpoint of the paper's code has model_state_dict and model_config.",
            )
    tensors = {}
    for key, tensor in content["model_state_dict"].items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{source}: {key} in model_state_dict is no tensor")
        name = key.removeprefix("module.").removeprefix("_orig_mod.")
        if not _is_buffer(name, tensor):
            tensors[name] = tensor
    return content["model_config"], tensors


def _is_buffer(name: str, tensor: Tensor) -> bool:
    """Whether it is the causal mask (`attn.bias`, 4-D) or another buffer of an attention block."""
    if _BUFFER.fullmatch(name) is None:
        return False
    return tensor.dim() in (0, 4) or not tensor.is_floating_point()


def _spec(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], layout: Layout, source: str
) -> ModelSpec:
    hidden, heads = integer(config, "n_embd"), integer(config, "n_head")
    return ModelSpec(
        vocab_size=integer(config, "vocab_size"),
        layers=integer(config, "n_layer", largest=4096),
        hidden_size=hidden,
        heads=heads,
        kv_heads=layout.kv_heads,
        head_dim=hidden // heads,
        ffn_size=integer(config, "n_inner", 4 * hidden),
        max_positions=integer(config, "n_positions"),
        sharing=layout.sharing,
        norm=Norm.LAYER,
        norm_eps=number(config, "layer_norm_epsilon", 1e-5),
        activation=Activation.GELU,
        gated_mlp=False,
        rope=None,
        qkv_bias=f"h.0.attn.{next(iter(layout.modules))}.bias" in tensors,
        out_bias="h.0.attn.c_proj.bias" in tensors,
        mlp_bias="h.0.mlp.c_fc.bias" in tensors,
        tied_head=flag(config, "tie_word_embeddings", default="lm_head.weight" not in tensors),
    )


def _drop_tied_head(tensors: dict[str, Tensor], spec: ModelSpec, source: str) -> None:
    """Leave out a second name of the embedding; a head of its own contradicts a tied model."""
    head, embedding = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if not spec.tied_head or head is None or embedding is None:
        return
    if head.data_ptr() != embedding.data_ptr() and not torch.equal(head, embedding):
        raise CheckpointError(
            f"{source}: model_config has tie_word_embeddings true, but lm_head.weight differs "
            "from wte.weight"
        )
    del tensors["lm_head.weight"]


def _check(
    spec: ModelSpec, places: Mapping[str, Place], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Every tensor is there, has its shape, and is as large in the file as it claims to be."""
    expected: dict[str, Shape] = {}
    for name, shape in parameter_shapes(spec).items():
        place = places[name]
        rows = max(place.stop, *expected.get(place.key, (0,))[:1])
        expected[place.key] = (rows, *shape[1:])
    check_shapes(expected, {key: tuple(t.shape) for key, t in tensors.items()}, path.name)
    for key, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(f"{path.name}: {key} is no plain tensor of floats")
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if needed > path.stat().st_size:
        raise CheckpointError(
            f"{path.name} has {path.stat().st_size} bytes, its tensors claim {needed}"
        )


def _view(tensors: Mapping[str, Tensor], place: Place) -> Tensor:
    return tensors[place.key].detach()[place.start : place.stop]


def _difference(views: Mapping[str, Tensor], layer: int) -> str | None:
    for part in ("weight", "bias"):
        stem = f"layers.{layer}.self_attn"
        key, value = views.get(f"{stem}.k_proj.{part}"), views.get(f"{stem}.v_proj.{part}")
        if key is not None and value is not None and not torch.equal(key, value):
            return f"the {part}s of key and value differ in layer {layer}"
    return None
