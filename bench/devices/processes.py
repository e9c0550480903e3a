"""Programs of the host that speak to devices."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def run_text(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run to the end without input; what devices print need not be UTF-8.

    Raises:
        subprocess.TimeoutExpired: it still runs after `timeout` seconds; it has been ended.
    """
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
