"""Calling the runner and reading its lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """What one call gave."""

    code: int
    events: list[dict[str, Any]]
    errors: str

    def event(self, name: str) -> dict[str, Any]:
        """The only event of that name."""
        (found,) = [event for event in self.events if event["event"] == name]
        return found

    @property
    def phases(self) -> dict[str, dict[str, Any]]:
        return {e["phase"]: e for e in self.events if e["event"] == "phase"}

    @property
    def tokens(self) -> list[int]:
        tokens: list[int] = self.event("tokens")["tokens"]
        return tokens


def run(program: Sequence[str | Path], *arguments: object, prompt: Sequence[int] = (1,)) -> Run:
    """Run `program`, the prompt's ids on its standard input, and parse every line it prints."""
    done = subprocess.run(
        [*map(str, program), *map(str, arguments)],
        input=json.dumps(list(prompt)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return Run(done.returncode, events, done.stderr)


def check_failure(result: Run, kind: str, says: str, code: int = 1) -> None:
    """One line for programs, one for people, an exit code, and no abort."""
    assert result.code == code, result.errors
    error = result.event("error")
    assert error["kind"] == kind
    assert says in error["message"]
    assert result.errors == f"error: {error['message']}\n"
