"""From what a run told and how it ended to its record: a result, or why there is none."""

from __future__ import annotations

from onekv.bench.devices.base import Ending
from onekv.bench.plausible import implausible
from onekv.bench.records import ErrorKind, Failure, Iteration
from onekv.bench.run_output import RunOutput
from onekv.bench.token_check import Expected


def measured(output: RunOutput) -> dict[str, object]:
    """The fields of a record that a run told itself."""
    return {"runner": output.runner, "phases": tuple(output.phases), "speed": output.speed}


def finish(begun: Iteration, expected: Expected, ending: Ending, output: RunOutput) -> Iteration:
    """The record of a process that ended, whatever its end was."""
    told = measured(output)
    if output.chosen is not None:
        told["check"] = expected.judge(output.chosen)
    record = begun.model_copy(update=told)
    failure = ending.failure or output.error or _fault(record, ending, output)
    return record.model_copy(update={"error": failure})


def _fault(record: Iteration, ending: Ending, output: RunOutput) -> Failure | None:
    """What is wrong with a run that nobody called a failure."""
    if ending.code != 0 or not output.ended:
        return Failure(
            kind=ErrorKind.CRASH, message=f"ended with {ending.code} and without a last line"
        )
    check = record.check
    if check is None or not check.passed:
        counts = "" if check is None else f": {check.equal} of {check.compared} are equal"
        return Failure(
            kind=ErrorKind.WRONG_TOKENS, message=f"not the tokens of the parity record{counts}"
        )
    if reason := implausible(record):
        return Failure(kind=ErrorKind.IMPLAUSIBLE, message=reason)
    return None


def failed_record(record: Iteration, kind: ErrorKind, message: str) -> Iteration:
    """The record of an iteration that has no result."""
    return record.model_copy(update={"error": Failure(kind=kind, message=message)})
