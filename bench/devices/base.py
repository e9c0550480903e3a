"""What every device offers to the suite, and how the runner is called on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from onekv.bench.records import DeviceInfo, DeviceState, ErrorKind, Failure, Options
from onekv.errors import OnekvError
from onekv.export.bundle import Bundle


@dataclass(frozen=True)
class Job:
    """One run of the runner: a fresh process.

    prompt: token ids, the first `options.depth` of which only fill the cache. check: a prompt of
    `check_prompt` ids and its known continuation, fed after measuring. timeout: seconds.
    """

    bundle: Bundle
    options: Options
    prompt: tuple[int, ...]
    check: tuple[int, ...]
    check_prompt: int
    timeout: float


@dataclass(frozen=True)
class Ending:
    """How a process ended. failure: what the device knows of a death that the runner could not
    tell itself; the runner's own last words are in its output.
    """

    code: int | None
    failure: Failure | None = None


class DeviceError(OnekvError):
    """The device itself failed: it is gone, full, or refuses. Ends the suite, not the results."""

    def __init__(self, kind: ErrorKind, message: str, fix: str | None = None) -> None:
        super().__init__(message, fix)
        self.kind = kind


class Device(Protocol):
    """A device that is there. Any call raises DeviceError when it no longer is."""

    def describe(self) -> DeviceInfo:
        """What it is. Read once."""

    def state(self) -> DeviceState:
        """How it is now."""

    def push(self, bundle: Bundle) -> None:
        """Put the runner and the bundle's files in place; what is there already stays."""

    def run(self, job: Job) -> Ending:
        """Run the runner on a bundle that was pushed, to its end or to the job's timeout."""

    def pull(self) -> str:
        """The standard output of the last run, as far as it got: JSON lines."""

    def stream_read(self, threads: int | None) -> float | None:
        """The bandwidth of streaming reads in GB/s, where the runner can be asked for it."""


@dataclass(frozen=True)
class Places:
    """Paths on the device. runtime: libonnxruntime, for ONNX bundles alone.

    at_phase_end: a command of the device's shell that the runner calls after each phase.
    """

    runner: PurePath
    model: PurePath
    prompt: PurePath
    check: PurePath
    runtime: PurePath | None = None
    operators: tuple[PurePath, ...] = ()
    at_phase_end: str | None = None


def runner_command(job: Job, places: Places) -> list[str]:
    """The runner's command line for a job, its files being at `places`."""
    options, manifest = job.options, job.bundle.manifest
    command: list[str | PurePath] = [places.runner, places.model, "--prompt", places.prompt]
    command += ["--depth", str(options.depth), "--decode", str(options.decode_tokens)]
    command += ["--context", str(manifest.options.context), "--ignore-eos"]
    command += ["--sample-ms", str(options.sampling_ms or 0)]
    if options.chunk is not None:
        command += ["--chunk", str(options.chunk)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    if job.check:
        command += ["--check", places.check, "--check-prompt", str(job.check_prompt)]
    if places.runtime is not None:
        command += ["--runtime", places.runtime, *_prepack(job.bundle)]
    if places.at_phase_end is not None:
        command += ["--at-phase-end", places.at_phase_end]
    for library in places.operators:
        command += ["--operators", library]
    return [str(part) for part in command]


def _prepack(bundle: Bundle) -> list[str]:
    """As onekv's own sessions have it: products with integers are slow in the file's layout."""
    from onekv.runtime.onnx_integers import multiplies_integers

    return ["--prepack"] if multiplies_integers(bundle.entry) else []


def token_file(tokens: Sequence[int]) -> str:
    """Token ids as the runner reads them."""
    return " ".join(map(str, tokens)) + "\n"
