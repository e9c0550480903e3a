"""The one schema of `manifest.json`. A manifest is input: whatever is unknown or odd is refused."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions

SCHEMA_VERSION = 1
NAME = "manifest.json"


def _plain_relative(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} does not stay inside the bundle")
    if not name or str(path) != name or name == ".":
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain_relative)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleFile(_Record):
    """One file of the bundle, as it was when it was written."""

    name: FileName
    bytes: NonNegativeInt
    sha256: Sha256


class Source(_Record):
    """Where the model came from: a name, never a path, and a hash of what was read."""

    name: str
    format: str
    sha256: Sha256
    sharing_evidence: str


class Memory(_Record):
    """Bytes known before the bundle runs."""

    parameters: PositiveInt
    weights: PositiveInt
    cache_per_token: PositiveInt
    cache: PositiveInt


class Difference(_Record):
    """How far logits lie from the source model's, over `positions` rows."""

    positions: PositiveInt
    relative_l2: float
    max_abs: float
    argmax_agreement: float
    kl: float


class Perplexity(_Record):
    """Of the same text, by the source model and by the bundle."""

    text: str
    tokens: PositiveInt
    source: float | None
    bundle: float


class Parity(_Record):
    """What `verify` found, and whether it is within what the number format allows.

    `drift` is the source's own, when the last bits of its sums are disturbed (relative L2).
    `operators` names the form of attention that ran. `stock` is the same check of the file's own
    stock operators where onekv's kernel took their place. `rounded` is it of a file as it ships
    that rounds activations to fixed ranges; the other figures leave that rounding out.
    """

    against: str
    prefill: Difference
    decode: Difference
    greedy_tokens: PositiveInt
    greedy_equal: NonNegativeInt
    tolerance: float
    drift: float = 0.0
    passed: bool
    reasons: tuple[str, ...] = ()
    perplexity: Perplexity | None = None
    operators: str = ""
    stock: Parity | None = None
    rounded: Parity | None = None


class Manifest(_Record):
    """A bundle's description of itself."""

    schema_version: int
    onekv: str
    model: ModelSpec
    options: ExportOptions
    variant: str
    source: Source
    entry: FileName
    files: tuple[BundleFile, ...]
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    tools: dict[str, str]
    memory: Memory
    parity: Parity | None = None
