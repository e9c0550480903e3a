"""onekv bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.commands.common import AsJson, echo, echo_json
from onekv.errors import UsageError

if TYPE_CHECKING:
    from onekv.bench.records import Iteration


def bench(
    bundles: Annotated[list[Path], typer.Argument(help="Folders that `onekv export` wrote.")],
    on: Annotated[
        str, typer.Option(help="host, android[:SERIAL] or ios[:UDID].", metavar="DEVICE")
    ] = "host",
    depth: Annotated[
        str, typer.Option("-d", "--depth", help="Tokens in the cache before the prompt: 0,2048.")
    ] = "0",
    prompt_tokens: Annotated[int, typer.Option("-p", min=1, help="Tokens of the prompt.")] = 128,
    decode_tokens: Annotated[int, typer.Option("-n", min=1, help="New tokens.")] = 64,
    repetitions: Annotated[int, typer.Option("-r", min=1, help="Iterations of each.")] = 5,
    warm_ups: Annotated[int, typer.Option(min=0, help="Iterations before those.")] = 1,
    cool_down: Annotated[float, typer.Option(min=0, help="Seconds between iterations.")] = 0.0,
    threads: Annotated[
        int | None, typer.Option("-t", min=1, help="Default: the runtime's choice.")
    ] = None,
    sampling: Annotated[bool, typer.Option(help="Sample memory while it runs.")] = True,
    slope: Annotated[
        bool, typer.Option("--slope", help="Memory alone at several depths: bytes per token.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one iteration.")] = 1800.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the output file.")] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File of JSON lines, one an iteration.")
    ] = Path("bench.jsonl"),
    as_json: AsJson = False,
) -> None:
    """Measure bundles on a device: time and memory by phase, every iteration kept."""
    from onekv.bench.devices.open import open_device
    from onekv.bench.slope import fit_slopes, piece_bytes, slope_options
    from onekv.bench.suite import SuiteOptions, run_suite
    from onekv.bench.tables import phase_table, series_line, slope_table, speed_table
    from onekv.export.bundle import open_bundle
    from onekv.export.plan import plan_process

    opened = [open_bundle(bundle) for bundle in bundles]
    options = SuiteOptions(
        depths=_depths(depth),
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        repetitions=repetitions,
        warm_ups=warm_ups,
        threads=threads,
        sampling_ms=20 if sampling else None,
        cool_down=cool_down,
        timeout=timeout,
    )
    if slope:
        context = min(bundle.manifest.options.context for bundle in opened)
        plans = [plan_process(b.manifest.model, b.manifest.options) for b in opened]
        options = slope_options(context, options, min(piece_bytes(plan) for plan in plans))

    def report(record: Iteration, done: int, total: int) -> None:
        typer.echo(f"[{done}/{total}] {series_line(record)}", err=True)

    with open_device(on) as device:
        records = run_suite(opened, device, options, output, resume, report)
    if as_json:
        echo_json(records)
    elif slope:
        echo(slope_table(fit_slopes(records)))
    else:
        echo(speed_table(records))
        echo(phase_table(records))
    if not all(record.ok for record in records):
        raise typer.Exit(1)


def _depths(text: str) -> tuple[int, ...]:
    try:
        depths = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"-d {text}: not numbers apart by commas", "Write -d 0,2048.") from error
    if min(depths) < 0:
        raise UsageError(f"-d {text}: a depth is 0 or more")
    return depths
