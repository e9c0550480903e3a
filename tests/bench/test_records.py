"""The record format: what is kept, what is refused, and what a cut-off file still gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from onekv.bench.record_file import append, read_records
from onekv.bench.records import (
    DeviceInfo,
    DeviceKind,
    Iteration,
    MemorySplit,
    Phase,
)
from onekv.bench.schema import SCHEMA, schema_text
from onekv.errors import OnekvError
from tests.bench.samples import iteration, memory


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written = [iteration(0), iteration(1, depth=512)]
    with path.open("a") as file:
        for record in written:
            append(file, record)
    assert list(read_records(path)) == written


def test_the_schema_in_the_repository_is_that_of_the_code() -> None:
    assert SCHEMA.read_text() == schema_text(), "run python -m onekv.bench.schema"


def test_a_line_that_was_cut_off_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    line = iteration().model_dump_json()
    path.write_text(f"{line}\n{line[:100]}")
    assert len(list(read_records(path))) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"schema_version": 2}', "schema version 2"),
        ('{"schema_version": 1}', "not a record"),
    ],
)
def test_a_file_of_something_else_is_named_with_its_line(
    tmp_path: Path, line: str, says: str
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{iteration().model_dump_json()}\n{line}\n")
    with pytest.raises(OnekvError, match=says) as error:
        list(read_records(path))
    assert f"{path}:2" in error.value.message


def test_unknown_memory_is_null_and_never_zero() -> None:
    for field in ("pss_anon", "pss_file", "gpu", "rss", "phys_footprint"):
        with pytest.raises(ValidationError):
            MemorySplit(**{field: 0})
    assert MemorySplit().anonymous is None
    assert MemorySplit(pss_anon=5).anonymous is None, "swap is unknown, so the sum is"
    assert MemorySplit(phys_footprint=7).anonymous == 7


def test_device_strings_lose_what_a_terminal_would_obey() -> None:
    device = DeviceInfo(kind=DeviceKind.ANDROID, id="ser\x1b[31mial\n", model="x" * 999)
    assert device.id == "ser[31mial"
    assert device.model is not None and len(device.model) == 200


def test_phases_must_be_in_order_and_once() -> None:
    content = json.loads(iteration().model_dump_json())
    content["phases"].reverse()
    with pytest.raises(ValidationError, match="order"):
        Iteration.model_validate(content)


def test_a_phases_anonymous_memory_is_the_largest_seen() -> None:
    decode = iteration().phase(Phase.DECODE)
    assert decode is not None
    assert decode.anonymous == decode.end.anonymous
    higher = decode.model_copy(update={"peak": memory(900 * 2**20)})
    assert higher.anonymous == 900 * 2**20


def test_a_wrong_result_is_never_ok() -> None:
    good = iteration()
    assert good.ok and good.check is not None
    assert not iteration(check=good.check.model_copy(update={"passed": False})).ok
    assert not iteration(check=None).ok
