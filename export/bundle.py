"""A bundle on disk: written whole or not at all, and checked before it is used."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from onekv.errors import BundleError, OnekvError, UsageError, first_problem
from onekv.export.manifest import NAME, SCHEMA_VERSION, BundleFile, Manifest


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file was there, and as its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def entry(self) -> Path:
        """The file that the runtime loads."""
        return self.path / self.manifest.entry

    def file(self, name: str) -> Path | None:
        """The path of a file of the bundle, if it has one of that name."""
        listed = any(entry.name == name for entry in self.manifest.files)
        return self.path / name if listed else None


def check_free(folder: Path, force: bool) -> None:
    """Refuse to write where something is.

    Raises:
        UsageError: `folder` exists and `force` is not set, or it is something else.
    """
    if folder.exists() and not force:
        raise UsageError(f"{folder} exists", "Choose another folder, or replace it with --force.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "Choose another folder.")


def is_bundle(folder: Path) -> bool:
    """Whether a folder says that it is a bundle."""
    return (folder / NAME).is_file()


@contextmanager
def writing(folder: Path, force: bool = False) -> Iterator[Path]:
    """A temporary sibling of `folder` that takes its place when the block ends well.

    Whatever ends the block otherwise, an interrupt included, leaves nothing behind.

    Raises:
        UsageError: `folder` exists and `force` is not set.
        OnekvError: the disk is full, or the folder cannot be written.
    """
    check_free(folder, force)
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield partial
        partial.chmod(0o755)
        _take_place(partial, folder)
    except OSError as error:
        # NumPy reports a short write without an error number.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        raise OnekvError(
            f"{folder} cannot be written: {'the disk is full' if full else error}",
            "Free some space, or choose another folder with -o.",
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _take_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as old:
        folder.rename(Path(old) / "replaced")
        partial.rename(folder)


def describe_files(folder: Path) -> tuple[BundleFile, ...]:
    """Name, size and hash of every file in a folder but the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        BundleFile(
            name=path.relative_to(folder).as_posix(),
            bytes=path.stat().st_size,
            sha256=file_hash(path),
        )
        for path in files
        if path != folder / NAME
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace a bundle's manifest in one step."""
    partial = folder / f".{NAME}.partial"
    try:
        partial.write_text(manifest.model_dump_json(indent=2) + "\n")
        partial.replace(folder / NAME)
    finally:
        partial.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest, its files unchecked.

    Raises:
        BundleError: it is absent, not valid, or of another schema version.
    """
    path = folder / NAME
    if not is_bundle(folder):
        raise BundleError(
            f"{folder} is not a bundle: it has no {NAME}",
            "Give the folder that `onekv export` wrote.",
        )
    text = path.read_bytes()
    _check_schema_version(path, text)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = first_problem(error, "the whole file")
        raise BundleError(f"{path} is not valid: {problem}", "Export the model again.") from error


def _check_schema_version(path: Path, text: bytes) -> None:
    """Before the rest is looked at, so that a newer bundle is named as such."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BundleError(
            f"{path} is not valid JSON: {error}", "Export the model again."
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version!r}, this onekv reads {SCHEMA_VERSION}",
            "Export the model again, or use the onekv that wrote it.",
        )


def open_bundle(folder: Path) -> Bundle:
    """A bundle whose files are all there and unchanged.

    Raises:
        BundleError: the manifest is not valid, or a file is missing, outside, or changed.
    """
    manifest = read_manifest(folder)
    for entry in manifest.files:
        _check_file(folder, entry)
    # A Core ML package, which is a folder, is an entry too.
    if not any(f"{entry.name}/".startswith(f"{manifest.entry}/") for entry in manifest.files):
        raise BundleError(f"{folder / NAME} does not list its own entry {manifest.entry}")
    return Bundle(folder, manifest)


def _check_file(folder: Path, entry: BundleFile) -> None:
    path = folder / entry.name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path} leads outside the bundle", "Export the model again.")
    if not path.is_file():
        raise BundleError(f"{path} is missing", "Copy the whole bundle, or export again.")
    size = path.stat().st_size
    if size != entry.bytes or file_hash(path) != entry.sha256:
        raise BundleError(
            f"{path} was changed after export: {size} bytes now, {entry.bytes} when written",
            "Copy the bundle again, or export again.",
        )
