"""Writes the record format as a JSON schema: `python -m onekv.bench.schema`."""

from __future__ import annotations

import json
from pathlib import Path

from onekv.bench.records import Iteration

SCHEMA = Path(__file__).parent / "iteration.schema.json"


def schema_text() -> str:
    """The schema of one line of a result file."""
    return json.dumps(Iteration.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
