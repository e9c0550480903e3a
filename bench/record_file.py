"""Files of records: appended line by line, and read by whoever was given one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from onekv.bench.records import SCHEMA_VERSION, Iteration
from onekv.errors import OnekvError, first_problem


def append(file: IO[str], record: Iteration) -> None:
    """Write one line and see it to the disk, so that nothing measured is lost."""
    file.write(record.model_dump_json() + "\n")
    file.flush()
    os.fsync(file.fileno())


def read_records(path: Path) -> Iterator[Iteration]:
    """The records of a result file. A last line that was cut off is left out.

    Raises:
        OnekvError: the file cannot be read, or a line is no record of this schema version.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise OnekvError(
            f"{path} cannot be read: {error.strerror}", "Give a file of `onekv bench`."
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == len(lines) and not line.endswith(b"\n")):
            continue
        yield _parse(path, number, line)


def _parse(path: Path, number: int, line: bytes) -> Iteration:
    try:
        version = json.loads(line).get("schema_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise OnekvError(
            f"{path}:{number} is not a JSON object", "Give a file of `onekv bench`."
        ) from error
    if version != SCHEMA_VERSION:
        raise OnekvError(
            f"{path}:{number} has schema version {version!r}, this onekv reads {SCHEMA_VERSION}",
            "Measure again, or use the onekv that wrote it.",
        )
    try:
        return Iteration.model_validate_json(line)
    except ValidationError as error:
        problem = first_problem(error, "the whole line")
        raise OnekvError(f"{path}:{number} is not a record: {problem}", "Measure again.") from error
