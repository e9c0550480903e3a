"""A bundle is written whole or not at all, and nothing in it is believed before it is checked."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from onekv.errors import BundleError, OnekvError, UsageError
from onekv.export.bundle import open_bundle, read_manifest, write_manifest, writing


def change_manifest(bundle: Path, **values: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def bundle(sample_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(sample_bundle, tmp_path / "bundle"))


def test_an_exported_bundle_opens_and_lists_every_file(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    on_disk = {path.name for path in bundle.iterdir()} - {"manifest.json"}
    assert {file.name for file in manifest.files} == on_disk
    assert manifest.parity is not None and manifest.parity.passed


def test_a_manifest_keeps_no_path_of_the_machine_that_wrote_it(bundle: Path) -> None:
    assert str(Path.home()) not in (bundle / "manifest.json").read_text()
    assert "/" not in read_manifest(bundle).source.name


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "parity.safetensors"])
def test_one_changed_byte_is_noticed(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed after export"):
        open_bundle(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "model.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx\.data is missing"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/../../b", "C:\\x", "..", ".", "", "a//b", "./a"]
)
def test_a_path_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    change_manifest(bundle, entry=name)
    with pytest.raises(BundleError, match="not valid: entry"):
        open_bundle(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "model.onnx", tmp_path / "elsewhere")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="leads outside"):
        open_bundle(bundle)


def test_an_entry_that_is_not_listed_is_refused(bundle: Path) -> None:
    change_manifest(bundle, entry="other.onnx")
    with pytest.raises(BundleError, match=r"does not list its own entry other\.onnx"):
        open_bundle(bundle)


def test_a_newer_schema_is_named_before_its_unknown_fields(bundle: Path) -> None:
    change_manifest(bundle, schema_version=2, something_new=1)
    with pytest.raises(BundleError, match="schema version 2, this onekv reads 1"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 1}', "null", "\x00"])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(bundle)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_when_writing_ends_early(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    with pytest.raises(failure), writing(tmp_path / "out") as partial:
        (partial / "half").write_text("x")
        raise failure
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OnekvError, match="the disk is full"), writing(tmp_path / "out") as partial:
        (partial / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"), writing(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_a_folder_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("x")
    with pytest.raises(RuntimeError), writing(out, force=True):
        raise RuntimeError
    assert (out / "old").is_file()
    with writing(out, force=True) as partial:
        (partial / "new").write_text("y")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["new"]


def test_rewriting_a_manifest_keeps_the_rest(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    write_manifest(bundle, manifest.model_copy(update={"parity": None}))
    assert open_bundle(bundle).manifest.parity is None
