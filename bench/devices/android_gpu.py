"""GPU memory by phase: what Android's own accounting, `dumpsys meminfo`, gives to the runner.

Nothing else tells it, and it takes a moment, so the runner calls for it between its phases. What
a phone says is not believed: figures that cannot be are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from onekv.bench.devices.adb import quote
from onekv.bench.devices.android_facts import said, script
from onekv.bench.records import Phase
from onekv.export.options import Profile

COMMAND = "dumpsys meminfo $ONEKV_PID > gpu-$ONEKV_PHASE.txt 2>/dev/null"
"""What the runner calls after each phase, in the folder that it runs in."""

FILES = "gpu-*.txt"
USERS = (Profile.GPU,)
"""The profiles whose bundles hold memory of a GPU; others are not asked."""

# No phone has a tebibyte; a process' table has a few kilobytes.
_MOST_KIB = 2**30
_MOST_TEXT = 2**16


def gpu_bytes(meminfo: str) -> int | None:
    """GPU memory of a process by `dumpsys meminfo PID`; None where the phone does not tell.

    A driver whose accounting is missing reports 0. `Graphics` is the summary's own sum.
    """
    rows = re.findall(r"^\s*(GL|EGL) mtrack\s+(\d{1,12})\b", meminfo, re.MULTILINE)
    if not rows:
        rows = re.findall(r"^\s*(Graphics):\s+(\d{1,12})\b", meminfo, re.MULTILINE)
    # One process has each line once: more is the table of something else.
    if len({name for name, _ in rows}) < len(rows):
        return None
    total = sum(int(kib) for _, kib in rows)
    return total * 1024 if 0 < total <= _MOST_KIB else None


def read_script(folder: PurePosixPath) -> str:
    """A script that shows what the runner's calls left; `parse` reads its output."""
    files = {phase: quote(str(folder / f"gpu-{phase}.txt")) for phase in Phase}
    return script({phase: f"head -c {_MOST_TEXT} {file}" for phase, file in files.items()})


def parse(text: str) -> dict[str, int]:
    """GPU memory at the end of each phase that has any, by the phase's name."""
    told = {phase: gpu_bytes(meminfo) for phase, meminfo in said(text).items()}
    return {phase: size for phase, size in told.items() if size is not None}


def add_gpu(output: str, told: Mapping[str, int]) -> str:
    """The runner's lines with `told` at the end of its phases; lines of another form stay."""
    return "".join(_with_gpu(line, told) for line in output.splitlines(keepends=True))


def _with_gpu(line: str, told: Mapping[str, int]) -> str:
    try:
        content = json.loads(line)
        content["end"]["gpu"] = told[content["phase"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return line
    return json.dumps(content, separators=(",", ":")) + "\n"
