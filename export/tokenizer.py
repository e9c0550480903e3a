"""A model's tokenizer: which files belong to it, and the tokens that a parity check starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from onekv.errors import BundleError, CheckpointError, UsageError

FILE = "tokenizer.json"

# What tokenizer loaders look for, in a Hugging Face folder and in a bundle alike.
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)

_PROMPT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, "
    "it was the age of foolishness, it was the epoch of belief"
)
_PROMPT_TOKENS = 24


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that holds `tokenizer.json`.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {FILE}", "Export again with --tokenizer DIR to run it on text."
        )
    try:
        return Tokenizer.from_file(str(path))
    # The library raises bare Exceptions.
    except Exception as error:
        raise BundleError(f"{path} is not a tokenizer: {error}") from error


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer and what loaders want beside it.

    Raises:
        CheckpointError: `source` has no tokenizer.
    """
    if not (source / FILE).is_file():
        raise CheckpointError(
            f"{source} has no {FILE}", "Give a folder that has one with --tokenizer."
        )
    for name in (FILE, *_COMPANIONS):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def parity_prompt(tokenizer: Tokenizer | None, vocab_size: int, context: int) -> list[int]:
    """Tokens to start a parity check with: a sentence, or seeded random ids without a tokenizer."""
    longest = max(1, min(_PROMPT_TOKENS, context // 2))
    if tokenizer is not None:
        ids = [i for i in tokenizer.encode(_PROMPT).ids if i < vocab_size]
        if ids:
            return ids[:longest]
    return [int(i) for i in np.random.default_rng(0).integers(vocab_size, size=longest)]


def text_tokens(folder: Path, text: Path, limit: int | None = None) -> list[int]:
    """The tokens of a text file, `limit` at most, by the tokenizer of a folder.

    Raises:
        BundleError: `folder` has no tokenizer.
        UsageError: the text cannot be read.
    """
    ids: list[int] = load_tokenizer(folder).encode(read_text(text)).ids
    return ids[:limit]


def read_text(text: Path) -> str:
    """A user's text file.

    Raises:
        UsageError: it cannot be read as UTF-8.
    """
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{text} cannot be read as UTF-8 text: {error}") from error
