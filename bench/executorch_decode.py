"""Decode speeds of programs side by side, each tool's in its own environment and ExecuTorch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onekv.bench import decode_program
from onekv.bench.executorch_exports import PEER, Exported
from onekv.bench.kept import Kept
from onekv.bench.measure import run_measured


@dataclass(frozen=True)
class Speed:
    """Decoded tokens per second of one program at one depth."""

    model: str
    tool: str
    depth: int
    tokens_per_second: float


@dataclass(frozen=True)
class Contest:
    """What was measured in one go, and may be compared: speeds, and GB/s of a streaming read."""

    speeds: tuple[Speed, ...]
    stream_gb_s: float


def contest(
    exports: Sequence[Exported],
    depths: tuple[int, ...],
    tokens: int,
    kept: Kept,
    work: Path,
    say: Callable[[str], None],
    again: bool,
) -> Contest:
    """Decode `tokens` tokens at each depth with each program in turn; kept together or not at all.

    Speeds of different moments are not compared, so a contest that was interrupted starts over.
    """

    def measure() -> dict[str, object]:
        speeds = [s for each in exports for s in _speeds(each, depths, tokens, work, say)]
        return {"speeds": [asdict(speed) for speed in speeds], "stream_gb_s": _streaming_read()}

    key = json.dumps(["decode", [each.program for each in exports], depths, tokens])
    result = kept.once(key, measure, again)
    return Contest(tuple(Speed(**speed) for speed in result["speeds"]), result["stream_gb_s"])


def _speeds(
    exported: Exported,
    depths: tuple[int, ...],
    tokens: int,
    work: Path,
    say: Callable[[str], None],
) -> list[Speed]:
    from onekv.runtime import executorch_library

    peer = exported.tool == PEER
    python = str(work / PEER / "bin/python") if peer else sys.executable
    libraries = ["llama" if peer else str(executorch_library.build()), "quantized"]
    # -P: beside that program lies a module that is called executorch too.
    program = (python, "-P", decode_program.__file__, exported.program)
    say(f"{exported.model}: {exported.tool} decodes at {', '.join(map(str, depths))}")
    arguments = (json.dumps(depths), str(tokens), *libraries)
    cost = run_measured((*program, *arguments), work / "decode.log")
    rates = [1 / seconds for seconds in json.loads(cost.output.splitlines()[-1])]
    say(f"  {', '.join(f'{rate:.1f}' for rate in rates)} tokens/s, {cost.seconds:.0f} s")
    return [Speed(exported.model, exported.tool, depth, rate) for depth, rate in zip(depths, rates)]


def _streaming_read() -> float:
    from onekv.bench.kernel.contest import streaming_read

    return streaming_read(os.cpu_count() or 1)
