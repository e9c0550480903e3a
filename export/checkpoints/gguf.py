"""Reads a `.gguf` through the readers of transformers and gguf; weights become float32."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onekv.errors import CheckpointError, OnekvError
from onekv.export.checkpoints.base import Checkpoint, check_shapes, token_ids
from onekv.export.checkpoints.gguf_header import check_header
from onekv.export.checkpoints.huggingface import stored_name
from onekv.export.checkpoints.sharing import prove
from onekv.export.model.config import spec_from_config
from onekv.export.model.shapes import Shape, parameter_shapes
from onekv.export.model.spec import ModelSpec
from onekv.runtime.quiet import quiet

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from torch import Tensor
    from transformers import PreTrainedConfig

# The architectures of llama, mistral (which calls itself llama), and qwen2.
_ARCHITECTURES = ("llama", "qwen2")


def open_gguf(path: Path) -> Checkpoint:
    """Read a file's metadata and compare its keys and values; the rest stays on disk.

    Raises:
        CheckpointError: the file is truncated or corrupt, of an architecture that onekv does
            not read, or needs what transformers' reader leaves out.
        OnekvError: the packages that read GGUF are not installed.
    """
    check_header(path)
    reader = _open_reader(path)
    architecture = _architecture(reader, path.name)
    config = _config(path)
    declared = spec_from_config(config.to_dict())
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    _check(declared, architecture, tensors, path.name)
    permuted = architecture == "llama"
    proof = prove(declared, "", lambda layer: _difference(tensors, layer, declared, permuted))
    begin = token_ids(config.bos_token_id, declared)
    return Checkpoint(
        spec=proof.spec,
        source=path.name,
        format="gguf",
        files=(path,),
        eos_token_ids=token_ids(config.eos_token_id, declared),
        bos_token_id=begin[0] if begin else None,
        sharing_evidence=proof.evidence,
        obstacle=proof.obstacle,
        _read=lambda: _load(path, config, proof.spec),
        _find_tokenizer=_tokenizer_writer(path),
    )


def _open_reader(path: Path) -> GGUFReader:
    try:
        import accelerate  # noqa: F401  transformers needs it to load a GGUF
        from gguf import GGUFReader
    except ImportError as error:
        raise OnekvError(
            f"reading {path.name} needs the package {error.name}", 'pip install "onekv[gguf]"'
        ) from error
    with _corruption_named(path):
        return GGUFReader(path)


def _architecture(reader: GGUFReader, source: str) -> str:
    field = reader.get_field("general.architecture")
    name = None if field is None else field.contents()
    if name not in _ARCHITECTURES:
        raise CheckpointError(
            f"{source} has the architecture {name!r}, which onekv does not read",
            f"Known architectures: {', '.join(_ARCHITECTURES)}.",
        )
    scaling = reader.get_field(f"{name}.rope.scaling.type")
    if scaling is not None and scaling.contents() != "none":
        raise CheckpointError(
            f"{source} scales its rotary positions ({scaling.contents()}), "
            "which transformers' GGUF reader leaves out",
            "Use the model's Hugging Face folder.",
        )
    return str(name)


def _config(path: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    with _corruption_named(path):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    return config


def _check(
    spec: ModelSpec, architecture: str, tensors: Mapping[str, ReaderTensor], source: str
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
    found = {name: tuple(int(n) for n in reversed(t.shape)) for name, t in tensors.items()}
    check_shapes(expected, found, source)


def _difference(
    tensors: Mapping[str, ReaderTensor], layer: int, spec: ModelSpec, permuted: bool
) -> str | None:
    for part in ("weight", "bias"):
        key, value = (tensors.get(f"blk.{layer}.attn_{name}.{part}") for name in ("k", "v"))
        if key is None or value is None:
            continue
        rows = _unpermuted(key.data, spec.kv_heads) if permuted else key.data
        if key.tensor_type != value.tensor_type or not np.array_equal(rows, value.data):
            return f"{value.name} differs from {key.name}"
    return None


def _unpermuted(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo the order that GGUF gives the rows of a rotated projection: pairs instead of halves."""
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _load(path: Path, config: PreTrainedConfig, spec: ModelSpec) -> dict[str, Tensor]:
    import torch
    from transformers import AutoModelForCausalLM

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
    except Exception as error:
        raise CheckpointError(
            f"{path.name} cannot be read: {error or type(error).__name__}",
            "Copy or download it again, or use the model's Hugging Face folder.",
        ) from error
