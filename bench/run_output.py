"""The runner's JSON lines, which may come from a phone and may end anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from onekv.bench.records import ErrorKind, Failure, PhaseRecord, Runner, Speed


@dataclass
class RunOutput:
    """What one run told. `chosen`: the tokens of the check; None when it did not get there."""

    runner: Runner | None = None
    phases: list[PhaseRecord] = field(default_factory=list)
    speed: Speed | None = None
    tokens: list[int] | None = None
    chosen: list[int] | None = None
    error: Failure | None = None
    ended: bool = False


def parse_output(text: str) -> RunOutput:
    """Read lines up to the first that is not one; unknown events are left out."""
    output = RunOutput()
    for line in text.splitlines():
        try:
            content = json.loads(line)
            _take(output, content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Cut off, or not the runner's: nothing after it can be trusted.
            break
    return output


def _take(output: RunOutput, content: dict[str, Any]) -> None:
    event = content.pop("event")
    if event in _READERS:
        _READERS[event](output, content)


def _start(output: RunOutput, content: Mapping[str, Any]) -> None:
    output.runner = Runner(
        **{n: content[n] for n in ("version", "runtime", "runtime_version", "operators")}
    )


def _phase(output: RunOutput, content: Mapping[str, Any]) -> None:
    output.phases.append(PhaseRecord.model_validate(content))


def _speed(output: RunOutput, content: Mapping[str, Any]) -> None:
    decode = tuple(content["decode_seconds"])
    output.speed = Speed(
        ttft=content["ttft"],
        prefill_tokens_per_second=content["prompt_tokens"] / content["ttft"],
        decode_tokens_per_second=len(decode) / sum(decode) if decode else None,
        decode_seconds=decode,
    )


def _error(output: RunOutput, content: Mapping[str, Any]) -> None:
    try:
        output.error = Failure(kind=content["kind"], message=content["message"])
    except ValidationError:
        output.error = Failure(kind=ErrorKind.RUNTIME, message=str(content["message"]))


def _integers(content: Mapping[str, Any], name: str) -> list[int]:
    values = content[name]
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise ValueError(name)
    return values


def _tokens(output: RunOutput, content: Mapping[str, Any]) -> None:
    output.tokens = _integers(content, "tokens")


def _check(output: RunOutput, content: Mapping[str, Any]) -> None:
    output.chosen = _integers(content, "chosen")


def _end(output: RunOutput, content: Mapping[str, Any]) -> None:
    output.ended = True


_READERS: dict[str, Callable[[RunOutput, Mapping[str, Any]], None]] = {
    "start": _start,
    "phase": _phase,
    "speed": _speed,
    "tokens": _tokens,
    "check": _check,
    "error": _error,
    "end": _end,
}
