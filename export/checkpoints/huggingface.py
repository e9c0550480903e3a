"""Reads a Hugging Face folder: `config.json`, safetensors, `tokenizer.json`. No torch to open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onekv.errors import CheckpointError
from onekv.export.checkpoints.base import (
    Checkpoint,
    check_shapes,
    folder_with_tokenizer,
    read_json,
    token_ids,
)
from onekv.export.checkpoints.sharing import Proof, prove
from onekv.export.checkpoints.stored import StoredTensor, read_header
from onekv.export.model.config import MODEL_TYPE, spec_from_config
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PARTS = ("weight", "bias")


@dataclass(frozen=True)
class _Weights:
    """What lies in the folder, by the names of the decoder."""

    tensors: dict[str, StoredTensor]
    files: tuple[Path, ...]

    def stores(self, layer: int, projection: str) -> bool:
        """Whether a projection of this layer is stored."""
        stem = f"layers.{layer}.self_attn.{projection}"
        return any(f"{stem}.{part}" in self.tensors for part in _PARTS)

    def difference(self, layer: int, projection: str) -> str | None:
        """How a projection differs from the key's in this layer; None if it does not."""
        for part in _PARTS:
            stem = f"layers.{layer}.self_attn"
            ours = self.tensors.get(f"{stem}.{projection}.{part}")
            key = self.tensors.get(f"{stem}.k_proj.{part}")
            if ours is None and key is None:
                continue
            if ours is None or key is None or not ours.same_bytes(key):
                return f"{stem}.{projection}.{part} differs from k_proj.{part}"
        return None


def open_folder(folder: Path) -> Checkpoint:
    """Read a folder's configuration and headers, and prove its sharing.

    Raises:
        CheckpointError: a file is missing or corrupt, or they contradict each other.
    """
    config = read_json(folder / "config.json")
    declared = spec_from_config(config)
    weights = _find_weights(folder, declared.tied_head)
    proof, kept = _prove(declared, weights)
    _check(proof.spec, kept, config["model_type"], folder.name)
    generation = _generation_config(folder)
    end = token_ids(generation.get("eos_token_id"), declared)
    begin = token_ids(generation.get("bos_token_id", config.get("bos_token_id")), declared)
    return Checkpoint(
        spec=proof.spec,
        source=folder.name,
        format="huggingface",
        files=(folder / "config.json", *weights.files),
        eos_token_ids=end or token_ids(config.get("eos_token_id"), declared),
        bos_token_id=begin[0] if begin else None,
        sharing_evidence=proof.evidence,
        obstacle=proof.obstacle,
        _read=lambda: _load(kept),
        _find_tokenizer=lambda: folder_with_tokenizer(folder),
    )


def has_weights(folder: Path) -> bool:
    """Whether the folder holds any safetensors that `open_folder` would read."""
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


def stored_name(name: str, family: str) -> str:
    """The name that the decoder's tensor `name` has in a folder of this `model_type`."""
    return name if name == "lm_head.weight" and family != MODEL_TYPE else f"model.{name}"


def own_name(key: str) -> str:
    """The decoder's name of a tensor that transformers calls `key`."""
    return key.removeprefix("model.")


def _prove(declared: ModelSpec, weights: _Weights) -> tuple[Proof, dict[str, StoredTensor]]:
    """The proven sharing, and the stored tensors without the copies that it makes redundant."""
    copies = False
    for projection in _redundant(declared.sharing):
        copies = _check_copies(declared, weights, projection) or copies
    stored = "stored copies are equal" if copies else "no copy is stored"
    proof = prove(
        declared,
        f"config.json declares {declared.sharing} and {stored}",
        lambda layer: weights.difference(layer, "v_proj"),
    )
    copied = [f".self_attn.{projection}." for projection in _redundant(proof.spec.sharing)]
    kept = {
        name: tensor
        for name, tensor in weights.tensors.items()
        if not any(projection in name for projection in copied)
    }
    return proof, kept


def _redundant(sharing: Sharing) -> list[str]:
    """The projections that a sharing makes copies of k_proj."""
    copies = {"v_proj": sharing.one_tensor, "q_proj": sharing.query_is_key}
    return [projection for projection, copy in copies.items() if copy]


def _check_copies(declared: ModelSpec, weights: _Weights, projection: str) -> bool:
    """Whether copies of k_proj are stored under this name; refuse tensors that are none."""
    layers = [i for i in range(declared.layers) if weights.stores(i, projection)]
    for layer in layers:
        apart = weights.difference(layer, projection)
        if apart is not None:
            raise CheckpointError(
                f"config.json declares sharing {declared.sharing}, but {apart}",
                'Correct "sharing" in config.json; a model with its own values is "qkv".',
            )
    return bool(layers)


def _find_weights(folder: Path, tied_head: bool) -> _Weights:
    if (folder / SINGLE).exists():
        files: tuple[Path, ...] = (folder / SINGLE,)
        stored = read_header(folder / SINGLE)
    elif (folder / INDEX).exists():
        stored, files = _read_shards(folder)
    else:
        found = sorted(p.name for p in folder.glob("*.bin"))
        raise CheckpointError(
            f"{folder.name} holds no {SINGLE} and no {INDEX}",
            f"Save {found[0]} as safetensors: pickled weights can run code."
            if found
            else "Download the weights beside config.json.",
        )
    tensors = {own_name(key): tensor for key, tensor in stored.items()}
    if len(tensors) != len(stored):
        raise CheckpointError(f"{folder.name} holds tensors both with and without model. before")
    _drop_unused(tensors, tied_head)
    return _Weights(tensors, files)


def _drop_unused(tensors: dict[str, StoredTensor], tied_head: bool) -> None:
    """Leave out a stored copy of the tied head, and buffers that old versions saved."""
    head, embedding = tensors.get("lm_head.weight"), tensors.get("embed_tokens.weight")
    if tied_head and head is not None and embedding is not None:
        if not head.same_bytes(embedding):
            raise CheckpointError(
                f"config.json has tie_word_embeddings true, but {head.key} differs from "
                f"{embedding.key}",
                "Set tie_word_embeddings to false in config.json.",
            )
        del tensors["lm_head.weight"]
    for name in [name for name in tensors if name.endswith("rotary_emb.inv_freq")]:
        del tensors[name]


def _read_shards(folder: Path) -> tuple[dict[str, StoredTensor], tuple[Path, ...]]:
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
        raise CheckpointError(f"{INDEX} has no weight_map from tensors to files")
    headers = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{INDEX} names {name!r}, which is no file of this folder")
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder.name}: the shard {name} is missing", "Download it beside config.json."
            )
        headers[name] = read_header(folder / name)
    for key, name in places.items():
        if key not in headers[name]:
            raise CheckpointError(f"{INDEX} puts {key} into {name}, which does not hold it")
    stored = {key: headers[name][key] for key, name in places.items()}
    return stored, (folder / INDEX, *(folder / name for name in headers))


def _check(spec: ModelSpec, kept: Mapping[str, StoredTensor], family: str, source: str) -> None:
    """Compare with the specification under the names that the files have."""
    keys = {name: tensor.key for name, tensor in kept.items()}
    expected = {
        keys.get(name, stored_name(name, family)): shape
        for name, shape in parameter_shapes(spec).items()
    }
    check_shapes(expected, {t.key: t.shape for t in kept.values()}, source)


def _generation_config(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def _load(kept: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    state: dict[str, Tensor] = {}
    for path in dict.fromkeys(tensor.file for tensor in kept.values()):
        try:
            with safe_open(path, framework="pt") as file:
                for name, tensor in kept.items():
                    if tensor.file == path:
                        state[name] = file.get_tensor(tensor.key)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    return state
