"""onekv export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.commands.common import (
    AsJson,
    Cache,
    ContextLength,
    DeploymentTarget,
    Force,
    GroupSize,
    Model,
    OperatorForm,
    Overrides,
    Platforms,
    Unit,
    Weights,
    echo,
    echo_json,
)
from onekv.export.options import Asked, Target

if TYPE_CHECKING:
    from onekv.export.pipeline import ExportPlan


def export(
    model: Model,
    to: Annotated[Target, typer.Option(help="The runtime to export for.")] = Target.ONNX,
    context: ContextLength = None,
    weights: Weights = None,
    group: GroupSize = None,
    override: Overrides = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Calibrate int4 weights, and an NPU's activations, on this text; `shipped` is "
            "onekv's own."
        ),
    ] = None,
    cache: Cache = None,
    profile: Unit = None,
    ops: OperatorForm = None,
    platform: Platforms = None,
    deployment_target: DeploymentTarget = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Bundle folder.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of the tokenizer.")] = None,
    no_tokenizer: Annotated[bool, typer.Option(help="Write a bundle of token ids only.")] = False,
    one_tensor: Annotated[
        bool, typer.Option(help="Refuse a model whose keys and values are not one tensor.")
    ] = False,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint into a bundle, checked against the source model."""
    from onekv.commands.inspect import show_bundle
    from onekv.export.bundle import check_free
    from onekv.export.checkpoints import open_checkpoint, require_one_tensor
    from onekv.export.pipeline import plan_export, run_export
    from onekv.export.resolve import resolve_options
    from onekv.terminal import StageReporter

    folder = output or Path(f"{model.stem if model.is_file() else model.name}-{to}")
    if not dry_run:
        check_free(folder, force)
    checkpoint = open_checkpoint(model)
    if one_tensor:
        require_one_tensor(checkpoint)
    asked = Asked(
        context=context,
        weights=weights,
        cache=cache,
        profile=profile,
        ops=ops,
        group=group,
        overrides=tuple(override or ()),
        platforms=tuple(platform or ()),
        deployment_target=deployment_target,
    )
    options = resolve_options(checkpoint.spec, to, asked)
    plan = plan_export(checkpoint, options, tokenizer, not no_tokenizer, calibrate)
    if dry_run:
        _show_plan(plan, folder, as_json)
        return
    bundle = run_export(plan, folder, force, StageReporter())
    show_bundle(bundle.manifest, as_json)
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)
    if not as_json:
        echo(f"wrote {folder}")


def _show_plan(plan: ExportPlan, folder: Path, as_json: bool) -> None:
    from onekv.terminal import plan_table, weights_table

    if as_json:
        echo_json({**plan.summary(), "output": folder.name})
    else:
        echo(plan_table(plan, folder))
        echo(weights_table(plan.weights))
