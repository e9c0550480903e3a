"""Measures bundles on a device: every iteration is a process of its own and a line on disk."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from onekv.bench.devices.base import Device, DeviceError, Job
from onekv.bench.outcome import failed_record, finish, measured
from onekv.bench.planned import planned_memory
from onekv.bench.record_file import append, read_records
from onekv.bench.records import (
    BundleInfo,
    DeviceInfo,
    ErrorKind,
    Iteration,
    Options,
    Purpose,
)
from onekv.bench.run_output import RunOutput, parse_output
from onekv.bench.token_check import Expected, expected_tokens
from onekv.errors import OnekvError, UsageError
from onekv.export.bundle import Bundle, file_hash
from onekv.export.manifest import NAME
from onekv.export.options import Profile, Target


@dataclass(frozen=True)
class SuiteOptions:
    """What to measure of each bundle. `cool_down` and `timeout` are seconds, of one iteration."""

    depths: tuple[int, ...] = (0,)
    prompt_tokens: int = 128
    decode_tokens: int = 64
    repetitions: int = 5
    warm_ups: int = 1
    chunk: int | None = None
    threads: int | None = None
    sampling_ms: int | None = 20
    cool_down: float = 0.0
    timeout: float = 1800.0
    purpose: Purpose = Purpose.SPEED

    def at(self, depth: int) -> Options:
        """One iteration's part of this."""
        return Options(
            depth=depth,
            prompt_tokens=self.prompt_tokens,
            decode_tokens=self.decode_tokens,
            chunk=self.chunk,
            threads=self.threads,
            sampling_ms=self.sampling_ms,
            cool_down=self.cool_down,
        )


@dataclass(frozen=True)
class Subject:
    """A bundle with what the suite needs of it again and again."""

    bundle: Bundle
    info: BundleInfo
    expected: Expected


@dataclass(frozen=True)
class _Turn:
    """One iteration to come."""

    subject: Subject
    options: Options
    number: int
    warm_up: bool
    purpose: Purpose

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same iteration when a suite goes on after an end."""
        return (self.subject.info, self.options, self.number, self.warm_up, self.purpose)

    @property
    def series(self) -> tuple[object, ...]:
        """The repetitions that it is one of."""
        return (self.subject.info, self.options)


Report = Callable[[Iteration, int, int], None]
"""Called after each iteration with its record, how many are done, and how many there are."""


def open_subject(bundle: Bundle) -> Subject:
    """What is recorded of a bundle, and the tokens that it must give.

    Raises:
        BundleError: it has no parity record.
        UsageError: it is made for an NPU, which the runner does not drive.
    """
    manifest = bundle.manifest
    if manifest.options.target is Target.ONNX and manifest.options.profile is Profile.NPU:
        raise UsageError(
            f"{bundle.path}: the runner does not run graphs that are made for an NPU",
            "Measure a bundle of --profile cpu; docs/onnx.md says how an app runs these.",
        )
    info = BundleInfo(
        name=bundle.path.resolve().name,
        manifest_sha256=file_hash(bundle.path / NAME),
        target=manifest.options.target,
        variant=manifest.variant,
        one_tensor=manifest.model.sharing.one_tensor,
        weights=manifest.options.weights,
        cache=manifest.options.cache,
        profile=manifest.options.profile,
        context=manifest.options.context,
        parameters=manifest.memory.parameters,
    )
    return Subject(bundle, info, expected_tokens(bundle))


def run_suite(
    bundles: Sequence[Bundle],
    device: Device,
    options: SuiteOptions,
    output: Path,
    resume: bool = False,
    report: Report = lambda record, done, total: None,
) -> list[Iteration]:
    """Measure, appending each iteration to `output`; gives those of this call.

    Repetitions take turns between bundles, so that a device that grows warm does so for all. A
    series of repetitions ends with its first failure.

    Raises:
        UsageError: a depth does not fit into a bundle's context, or `output` has results and
            `resume` is not set.
        DeviceError: the device is gone. What was measured is in `output`.
    """
    subjects = [open_subject(bundle) for bundle in bundles]
    _check_room(subjects, options)
    suite = _Suite(device, options, device.describe())
    done = suite.take_up(output, resume)
    turns = [turn for turn in _turns(subjects, options) if turn.key not in done]
    for subject in subjects:
        device.push(subject.bundle)
    output.parent.mkdir(parents=True, exist_ok=True)
    _end_last_line(output)
    records = []
    with output.open("a") as file:
        for record in suite.measure(turns, file):
            records.append(record)
            report(record, len(records), len(turns))
    return records


def _turns(subjects: Sequence[Subject], options: SuiteOptions) -> Iterator[_Turn]:
    for round_ in range(options.warm_ups + options.repetitions):
        for depth in options.depths:
            for subject in subjects:
                warm_up = round_ < options.warm_ups
                number = round_ if warm_up else round_ - options.warm_ups
                yield _Turn(subject, options.at(depth), number, warm_up, options.purpose)


@dataclass
class _Suite:
    device: Device
    options: SuiteOptions
    info: DeviceInfo
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def take_up(self, output: Path, resume: bool) -> set[tuple[object, ...]]:
        """Go on with a file's run; the keys of what needs no repeating."""
        if not output.exists() or output.stat().st_size == 0:
            return set()
        if not resume:
            raise UsageError(
                f"{output} has results", "Go on with it by --resume, or choose another -o."
            )
        records = list(read_records(output))
        if records:
            self.run = records[-1].run
        return {
            (r.bundle, r.options, r.iteration, r.warm_up, r.purpose)
            for r in records
            if r.ok and r.device == self.info
        }

    def measure(self, turns: Sequence[_Turn], file: IO[str]) -> Iterator[Iteration]:
        """Take the turns; those of a series that failed are left out."""
        failed = set()
        for place, turn in enumerate(turns):
            if turn.series in failed:
                continue
            if place:
                time.sleep(self.options.cool_down)
            record = self._take(turn, file)
            if record.error is not None:
                failed.add(turn.series)
            yield record

    def _take(self, turn: _Turn, file: IO[str]) -> Iteration:
        """One iteration, on disk before this returns or raises."""
        begun = self._begin(turn)
        try:
            ending = self.device.run(self._job(turn))
            # A device that goes away only now has been measured nevertheless.
            begun = finish(begun, turn.subject.expected, ending, parse_output(self.device.pull()))
            record = begun.model_copy(update={"after": self.device.state()})
        except DeviceError as error:
            append(file, failed_record(begun, error.kind, error.message))
            raise
        except KeyboardInterrupt:
            # What was measured until then is still told by the runner's own file.
            output = RunOutput()
            with suppress(OnekvError, OSError):
                output = parse_output(self.device.pull())
            partial = begun.model_copy(update=measured(output))
            append(file, failed_record(partial, ErrorKind.INTERRUPTED, "interrupted"))
            raise
        append(file, record)
        return record

    def _begin(self, turn: _Turn) -> Iteration:
        return Iteration(
            run=self.run,
            iteration=turn.number,
            warm_up=turn.warm_up,
            purpose=turn.purpose,
            started=datetime.now(UTC),
            bundle=turn.subject.info,
            device=self.info,
            before=self.device.state(),
            options=turn.options,
            planned=planned_memory(turn.subject.bundle.manifest, turn.options),
            stream_read_gb_s=self._bandwidth(turn),
        )

    def _bandwidth(self, turn: _Turn) -> float | None:
        # Memory alone is asked of a slope.
        if turn.purpose is Purpose.SLOPE:
            return None
        return self.device.stream_read(turn.options.threads)

    def _job(self, turn: _Turn) -> Job:
        expected, options = turn.subject.expected, turn.options
        vocabulary = turn.subject.bundle.manifest.model.vocab_size
        return Job(
            bundle=turn.subject.bundle,
            options=options,
            prompt=synthetic_tokens(options.depth + options.prompt_tokens, vocabulary),
            check=expected.tokens,
            check_prompt=expected.prompt,
            timeout=self.options.timeout,
        )


def synthetic_tokens(count: int, vocabulary: int) -> tuple[int, ...]:
    """The same ids on every device and in every run."""
    seed = hashlib.sha256(f"{vocabulary}".encode()).digest()
    generator = random.Random(seed)
    return tuple(generator.randrange(vocabulary) for _ in range(count))


def _check_room(subjects: Sequence[Subject], options: SuiteOptions) -> None:
    for subject in subjects:
        needed = max(options.at(depth).tokens for depth in options.depths)
        if needed > subject.info.context:
            raise UsageError(
                f"{needed} tokens do not fit into {subject.info.name}'s context of "
                f"{subject.info.context}",
                "Choose smaller depths (-d), or export with a larger --context.",
            )


def _end_last_line(output: Path) -> None:
    """A run that was killed may have left half a line: the next one begins on its own."""
    if not output.exists():
        return
    content = output.read_bytes()
    if content and not content.endswith(b"\n"):
        output.write_bytes(content[: content.rfind(b"\n") + 1])
