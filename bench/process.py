"""What one command costs: wall time and peak memory, as the operating system counts them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onekv.errors import OnekvError


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, and the resident bytes that the process held at its peak."""

    seconds: float
    peak_bytes: int


def measure(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command to its end; its output goes to `log`.

    Raises:
        OnekvError: it failed; the message ends with what it printed last.
    """
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(errors="replace")[-500:]
        raise OnekvError(f"{command[0]} failed with {process.returncode}: {tail}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
