"""Runs a command of its own process and tells what it cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onekv.errors import OnekvError

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU time in seconds, the largest resident set in bytes of any process of the run.

    The resident set counts files that are mapped, so a mapped checkpoint is in it.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    output: str


def run_measured(command: Command, log: Path) -> Cost:
    """Run `command`, its standard error going to `log`.

    The caller should be small: a process starts with its parent's resident set as its peak.

    Raises:
        OnekvError: the command fails; the message ends with the last lines of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        output = process.stdout.read()
        # wait4 counts the processes that this one waited for, too.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
    seconds = time.perf_counter() - started
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise OnekvError(
            f"{Path(command[0]).name} {command[1]} ended with {process.returncode}:\n{tail}",
            f"Its whole log is {log}.",
        )
    # Linux counts kibibytes.
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
