"""Writes any checkpoint as a Hugging Face folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onekv.errors import OnekvError
from onekv.export.bundle import writing
from onekv.export.checkpoints.base import Checkpoint
from onekv.export.checkpoints.huggingface import INDEX, SINGLE, stored_name
from onekv.export.model.config import config_from_spec
from onekv.export.tokenizer import copy_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

# What hubs and file systems of 32 bits still take.
SHARD_BYTES = 2_000_000_000

Tensors = dict[str, "Tensor"]


def convert(
    checkpoint: Checkpoint, out_dir: Path, force: bool = False, shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write config.json, safetensors and the tokenizer, whole or not at all.

    A model that shares projections, or has learned positions, gets the type "onekv", which
    transformers loads once `onekv` is imported; one that llama, mistral or qwen2 describes
    gets that type. Tensors keep the type they are stored in, and a mapped one is not copied.

    Raises:
        UsageError: `out_dir` exists and `force` is not set.
        OnekvError: the disk is full, or the folder cannot be written.
    """
    config = config_from_spec(checkpoint.spec)
    family = config["model_type"]
    with writing(out_dir, force) as partial:
        if checkpoint.tokenizer_dir is not None:
            copy_tokenizer(checkpoint.tokenizer_dir, partial)
        state = {stored_name(name, family): t for name, t in checkpoint.load().items()}
        _write_weights(state, partial, shard_bytes)
        ends = _special_tokens(checkpoint)
        dtype = next(iter(state.values())).dtype
        _write_json(partial / "config.json", config | ends | {"dtype": str(dtype).split(".")[1]})
        if ends and not (partial / "generation_config.json").exists():
            _write_json(partial / "generation_config.json", ends)
    return out_dir


def _special_tokens(checkpoint: Checkpoint) -> dict[str, Any]:
    ends = list(checkpoint.eos_token_ids)
    found = {
        "bos_token_id": checkpoint.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _write_weights(state: Tensors, folder: Path, shard_bytes: int) -> None:
    shards = list(_shards(state, shard_bytes))
    if len(shards) == 1:
        _write_shard(shards[0], folder / SINGLE)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(shard, folder / name)
        places |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in state.values())
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _write_shard(shard: Tensors, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(shard, path, {"format": "pt"})
    except SafetensorError as error:
        raise OnekvError(
            f"{path.name} cannot be written: {error}", "Free some space, or choose another folder."
        ) from error
    # safetensors leaves it readable by its owner alone.
    path.chmod(0o644)


def _shards(state: Tensors, shard_bytes: int) -> Iterator[Tensors]:
    """Tensors in their order, as many to a shard as fit; one that is larger gets its own."""
    shard: Tensors = {}
    size = 0
    for name, tensor in state.items():
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
    yield shard


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
