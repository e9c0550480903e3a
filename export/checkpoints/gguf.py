"""Reads a `.gguf`: its header by itself, its weights through transformers, as float32."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onekv.errors import CheckpointError, OnekvError
from onekv.export.checkpoints.base import Checkpoint, check_shapes, token_ids
from onekv.export.checkpoints.gguf_config import architecture_of, config_of
from onekv.export.checkpoints.gguf_header import TensorInfo, read_header
from onekv.export.checkpoints.huggingface import stored_name
from onekv.export.checkpoints.sharing import prove
from onekv.export.model.config import spec_from_config
from onekv.export.model.shapes import Shape, parameter_shapes
from onekv.export.model.spec import ModelSpec
from onekv.runtime.quiet import quiet

if TYPE_CHECKING:
    from torch import Tensor

# transformers needs the second to load a GGUF.
_PACKAGES = ("gguf", "accelerate")


@dataclass(frozen=True)
class _Stored:
    """A tensor's bytes, mapped from the file: all dimensions but the last are as they were."""

    info: TensorInfo
    rows: np.ndarray[Any, Any]


def open_gguf(path: Path) -> Checkpoint:
    """Read a file's metadata and compare its keys and values; the rest stays on disk.

    Raises:
        CheckpointError: the file is truncated or corrupt, of an architecture that onekv does
            not read, or needs what transformers' reader leaves out.
        OnekvError: the packages that read GGUF are not installed.
    """
    _require_packages(path)
    header = read_header(path)
    architecture = architecture_of(header, path.name)
    config = config_of(header, architecture, path.name)
    declared = spec_from_config(config)
    with _corruption_named(path):
        data = np.memmap(path, np.uint8, "r")
        tensors = {name: _cut(data, info, path.name) for name, info in header.tensors.items()}
    _check(declared, architecture, header.tensors, path.name)
    permuted = architecture == "llama"
    proof = prove(declared, "", lambda layer: _difference(tensors, layer, declared, permuted))
    begin = token_ids(config["bos_token_id"], declared)
    return Checkpoint(
        spec=proof.spec,
        source=path.name,
        format="gguf",
        files=(path,),
        eos_token_ids=token_ids(config["eos_token_id"], declared),
        bos_token_id=begin[0] if begin else None,
        sharing_evidence=proof.evidence,
        obstacle=proof.obstacle,
        _read=lambda: _load(path, declared, proof.spec),
        _find_tokenizer=_tokenizer_writer(path),
    )


def _require_packages(path: Path) -> None:
    for name in _PACKAGES:
        if find_spec(name) is None:
            raise OnekvError(
                f"reading {path.name} needs the package {name}", 'pip install "onekv[gguf]"'
            )


def _cut(data: np.ndarray[Any, Any], info: TensorInfo, source: str) -> _Stored:
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    shape = quant_shape_to_byte_shape(info.shape or (1,), GGMLQuantizationType(info.kind))
    end = info.start + prod(shape)
    if end > len(data):
        raise CheckpointError(
            f"{source} is truncated: {info.name} ends at byte {end}, the file has {len(data)}",
            "Copy or download it again.",
        )
    return _Stored(info, data[info.start : end].reshape(shape))


def _check(
    spec: ModelSpec, architecture: str, tensors: Mapping[str, TensorInfo], source: str
) -> None:
    """Every tensor is there: transformers would fill one that is not with random numbers."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(arch, spec.layers)
    expected: dict[str, Shape] = {}
    for own, shape in parameter_shapes(spec).items():
        key = stored_name(own, "llama")
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        expected[name or key] = shape
    check_shapes(expected, {name: info.shape for name, info in tensors.items()}, source)


def _difference(
    tensors: Mapping[str, _Stored], layer: int, spec: ModelSpec, permuted: bool
) -> str | None:
    for part in ("weight", "bias"):
        key, value = (tensors.get(f"blk.{layer}.attn_{name}.{part}") for name in ("k", "v"))
        if key is None or value is None:
            continue
        rows = _unpermuted(key.rows, spec.kv_heads) if permuted else key.rows
        if key.info.kind != value.info.kind or not np.array_equal(rows, value.rows):
            return f"{value.info.name} differs from {key.info.name}"
    return None


def _unpermuted(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo the order that GGUF gives the rows of a rotated projection: pairs instead of halves."""
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _load(path: Path, declared: ModelSpec, spec: ModelSpec) -> dict[str, Tensor]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _corruption_named(path):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    if spec_from_config(config.to_dict()) != declared:
        raise CheckpointError(
            f"transformers takes the metadata of {path.name} for another model than they describe",
            "Use the model's Hugging Face folder.",
        )
    # The reader draws progress bars of its own.
    with _corruption_named(path), redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, config=config, dtype=torch.float32
        )
    state = model.state_dict()
    return {name: state[stored_name(name, config.model_type)] for name in parameter_shapes(spec)}


def _tokenizer_writer(path: Path) -> Callable[[], Path]:
    """A function that writes the tokenizer once; its folder lives as long as the function."""

    @functools.cache
    def folder() -> tempfile.TemporaryDirectory[str]:
        from transformers import AutoTokenizer

        target = tempfile.TemporaryDirectory(prefix="onekv-tokenizer-")
        with _corruption_named(path):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            tokenizer.save_pretrained(target.name)
        return target

    return lambda: Path(folder().name)


@contextmanager
def _corruption_named(path: Path) -> Iterator[None]:
    """Turn whatever a reader stumbles over into an error that names the file."""
    try:
        with quiet():
            yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path.name} cannot be read: {error or type(error).__name__}",
            "Copy or download it again, or use the model's Hugging Face folder.",
        ) from error
