"""What every reader gives: a specification that is true, and tensors to load later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onekv.errors import CheckpointError
from onekv.export.model.shapes import Shape
from onekv.export.model.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

# An index of a thousand shards has a few megabytes.
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose tensors were found to be what its specification says.

    source: file or folder name, without its path. format: "paper", "huggingface" or "gguf".
    files: what was read, for hashing. sharing_evidence: one sentence on how the sharing was
    proven. obstacle: what keeps keys and values apart; None when one tensor serves as both.
    """

    spec: ModelSpec
    source: str
    format: str
    files: tuple[Path, ...]
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    sharing_evidence: str
    obstacle: str | None
    _read: Callable[[], dict[str, Tensor]] = field(repr=False, compare=False)
    _find_tokenizer: Callable[[], Path | None] = field(repr=False, compare=False)

    def load(self) -> dict[str, Tensor]:
        """The tensors under the names of `Decoder`, in the types they are stored in.

        Where the file's layout allows they are mapped, not copied.

        Raises:
            CheckpointError: a file can no longer be read.
        """
        return self._read()

    @property
    def tokenizer_dir(self) -> Path | None:
        """A folder that holds `tokenizer.json`, None without one.

        That of a `.gguf` is written when first asked for, and goes with the checkpoint.
        """
        return self._find_tokenizer()


def require_one_tensor(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose keys and values cannot share one cached tensor.

    Raises:
        CheckpointError: names the tensor that is in the way.
    """
    if checkpoint.obstacle is not None:
        raise CheckpointError(
            f"{checkpoint.source} cannot keep one tensor per layer: {checkpoint.obstacle}",
            "Use a model trained with shared keys and values, or export it with two tensors.",
        )


def check_shapes(expected: Mapping[str, Shape], found: Mapping[str, Shape], source: str) -> None:
    """Compare names and shapes, both under the checkpoint's own names.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    wanted, stored = _layer_count(expected), _layer_count(found)
    if wanted != stored:
        raise CheckpointError(
            f"{source}: the configuration gives {wanted} layers, the weights hold {stored}",
            "Check that the configuration belongs to these weights and that all files are there.",
        )
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(
            f"{source}: {_named(missing)} missing",
            "Check that the configuration belongs to these weights and that all files are there.",
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{source}: {name} has shape {list(found[name])}, "
                f"the configuration gives {list(shape)}",
                "Check that the configuration belongs to these weights.",
            )
    extra = [name for name in found if name not in expected]
    if extra:
        raise CheckpointError(f"{source}: {_named(extra)} left over. {_why_not(extra[0])}")


def _layer_count(names: Iterable[str]) -> int:
    """One more than the largest number between two dots."""
    numbers = (int(part) for name in names for part in name.split(".") if part.isdecimal())
    return 1 + max(numbers, default=-1)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more} {'are' if more else 'is'}"


def _why_not(name: str) -> str:
    if "norm" in name and ("attn" in name or "attention" in name):
        return (
            "A norm between a projection and its use changes what the cached row is; "
            "onekv's attention has none there."
        )
    return "The model that the configuration describes has no such tensor."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for.

    Raises:
        CheckpointError: the file is missing, too large, or no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise CheckpointError(f"{path.name} has {size} bytes, too many for a configuration")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object")
    return content


def token_ids(value: object, spec: ModelSpec) -> tuple[int, ...]:
    """Token ids from a configuration's int, list of ints, or nothing; others are dropped."""
    ids = value if isinstance(value, list) else [value]
    return tuple(i for i in ids if type(i) is int and 0 <= i < spec.vocab_size)


def folder_with_tokenizer(folder: Path) -> Path | None:
    """The folder itself when it holds a tokenizer."""
    return folder if (folder / "tokenizer.json").is_file() else None
