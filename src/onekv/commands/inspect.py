"""onekv inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.commands.common import AsJson, echo, echo_json
from onekv.commands.verify import show_parity

if TYPE_CHECKING:
    from onekv.export.manifest import Manifest
    from onekv.runtime.mil.summary import PackageSummary

_PACKAGE, _PROGRAM = ".mlpackage", ".pte"


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A bundle, a model as for export, a .mlpackage or a .pte.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a bundle, a checkpoint, a Core ML package or an ExecuTorch program holds."""
    from onekv.export.bundle import is_bundle, open_bundle
    from onekv.export.checkpoints import open_checkpoint
    from onekv.terminal import checkpoint_table

    if is_bundle(path):
        bundle = open_bundle(path)
        if bundle.entry.suffix == _PACKAGE and as_json:
            echo_json(
                {**bundle.manifest.model_dump(mode="json"), "package": _summary(bundle.entry)}
            )
            return
        show_bundle(bundle.manifest, as_json)
        if bundle.entry.suffix == _PACKAGE:
            _show_package(bundle.entry, as_json)
        if bundle.entry.suffix == _PROGRAM and not as_json:
            _show_program(bundle.entry, as_json)
        return
    if path.suffix == _PROGRAM:
        _show_program(path, as_json)
        return
    if path.suffix == _PACKAGE:
        _show_package(path, as_json)
        return
    checkpoint = open_checkpoint(path)
    if as_json:
        echo_json({"model": checkpoint.spec, "sharing_evidence": checkpoint.sharing_evidence})
    else:
        echo(checkpoint_table(checkpoint))


def show_bundle(manifest: Manifest, as_json: bool) -> None:
    """A bundle's manifest, its cache beside its twin's, and its parity record."""
    from onekv.export.plan import compare_caches
    from onekv.terminal import cache_table, manifest_table

    if as_json:
        echo_json(manifest)
        return
    context = manifest.options.context
    echo(manifest_table(manifest))
    echo(cache_table(compare_caches(manifest.model, context), context))
    if manifest.parity is None:
        echo(
            f"not run here: nothing on this system executes the {manifest.options.profile} profile"
        )
    else:
        show_parity(manifest.parity)


def _summary(package: Path) -> PackageSummary:
    from onekv.runtime.mil import read_package
    from onekv.runtime.mil.summary import summarise

    return summarise(read_package(package))


def _show_package(path: Path, as_json: bool) -> None:
    from onekv.terminal import package_table

    summary = _summary(path)
    if as_json:
        echo_json(summary)
    else:
        echo(package_table(summary))


def _show_program(path: Path, as_json: bool) -> None:
    from onekv.runtime.executorch_program import read_program
    from onekv.terminal import program_table

    program = read_program(path)
    if as_json:
        echo_json(program)
    else:
        echo(program_table(path.name, program))
