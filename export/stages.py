"""How long work reports itself, without the library knowing about terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from onekv.export.targets import Progress


class Reporter(Protocol):
    """Told of each stage as it begins; shows it in its own way."""

    def stage(self, name: str) -> AbstractContextManager[Progress]:
        """A stage that runs as long as the block; the block may call what it is given."""


class Silent:
    """Reports nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        yield lambda done, total: None
