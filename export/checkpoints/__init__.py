"""One reader per published format. Each gives a `Checkpoint`: what the model is, and its tensors.

Nothing here imports torch before a reader needs it.
"""

from __future__ import annotations

from pathlib import Path

from onekv.errors import CheckpointError
from onekv.export.checkpoints.base import Checkpoint, read_json, require_one_tensor
from onekv.export.model.spec import ModelSpec

__all__ = ["Checkpoint", "open_checkpoint", "read_spec", "require_one_tensor"]

_ACCEPTED = (
    "onekv reads a Hugging Face folder (config.json and safetensors), a .pt file of the paper's "
    "authors, and a .gguf file."
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Find out what a file or folder holds, check it, and prove its sharing.

    No more weights are read than the proof of sharing needs: the first layer's keys and
    values, and the others' only as long as they are equal.

    Raises:
        CheckpointError: the path is none of the formats, or its content is corrupt, hostile,
            or contradicts itself.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", _ACCEPTED)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(f"the folder {path} has no config.json", _ACCEPTED)
        from onekv.export.checkpoints.huggingface import open_folder

        return open_folder(path)
    if _starts_with(path, b"GGUF"):
        from onekv.export.checkpoints.gguf import open_gguf

        return open_gguf(path)
    if _starts_with(path, b"PK\x03\x04") or path.suffix in (".pt", ".pth"):
        from onekv.export.checkpoints.paper import open_paper

        return open_paper(path)
    raise CheckpointError(f"{path} is no checkpoint that onekv knows", _ACCEPTED)


def read_spec(path: Path) -> ModelSpec:
    """The specification alone; of a Hugging Face folder or its config.json without torch.

    A name such as `paper:1.2b/q-gqa-8` stands for a model of the paper. Without weights beside
    it, a config.json is taken at its word about sharing.

    Raises:
        CheckpointError: as `open_checkpoint`.
        UsageError: the paper has no such model.
    """
    from onekv.export.checkpoints.huggingface import has_weights
    from onekv.export.model.config import spec_from_config
    from onekv.export.model.paper import PREFIX, paper_model

    if str(path).startswith(PREFIX):
        return paper_model(str(path))
    folder = path.parent if path.name == "config.json" else path
    if (folder / "config.json").is_file() and not has_weights(folder):
        return spec_from_config(read_json(folder / "config.json"))
    return open_checkpoint(folder).spec


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
