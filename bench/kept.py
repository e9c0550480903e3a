"""Measurements that outlive an interruption: JSON lines, one for each, found again by a key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A file of lines {"key": ..., "result": {...}}; the last line of a key holds."""

    path: Path

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What was measured, or None. A line that an interruption cut short is passed over."""
        found = None
        if self.path.exists():
            for text in self.path.read_text().splitlines():
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    continue
                if line["key"] == key:
                    found = line["result"]
        return found

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Append one measurement, on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("\n" if self._cut() else "")
            file.write(json.dumps({"key": key, "result": dict(result)}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def once(
        self, key: str, measure: Callable[[], Mapping[str, Any]], again: bool = False
    ) -> Mapping[str, Any]:
        """What is kept under `key`; measured and kept where it is not, or `again`."""
        found = None if again else self.get(key)
        if found is None:
            found = measure()
            self.put(key, found)
        return found

    def _cut(self) -> bool:
        """Whether the last line lacks its end."""
        if not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
