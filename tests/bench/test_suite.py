"""The suite on this machine: what is recorded, and what survives each kind of end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from onekv.bench.devices.base import DeviceError, Ending, Job
from onekv.bench.devices.host import HostDevice
from onekv.bench.planned import planned_memory
from onekv.bench.record_file import read_records
from onekv.bench.records import DeviceKind, ErrorKind, Failure, Iteration, Options, Phase
from onekv.bench.suite import run_suite, synthetic_tokens
from onekv.errors import BundleError, OnekvError, UsageError
from onekv.export.bundle import Bundle, describe_files, open_bundle, write_manifest
from tests.bench.conftest import QUICK


class Interfering(HostDevice):
    """The host, with something that happens at one of its runs."""

    def __init__(self, at: int, what: Callable[[HostDevice, Job], Ending]) -> None:
        super().__init__()
        self._at, self._what, self.runs = at, what, 0

    def run(self, job: Job) -> Ending:
        self.runs += 1
        return self._what(self, job) if self.runs == self._at else super().run(job)


def _key(record: Iteration) -> tuple[int, int, bool]:
    return record.options.depth, record.iteration, record.warm_up


def test_every_iteration_is_recorded_whole_and_checked(
    host: HostDevice, bundle: Bundle, tmp_path: Path
) -> None:
    output = tmp_path / "results.jsonl"
    records = run_suite([bundle], host, QUICK, output)
    assert list(read_records(output)) == records
    assert [_key(record) for record in records] == [
        (0, 0, True), (20, 0, True), (0, 0, False), (20, 0, False), (0, 1, False), (20, 1, False)
    ]  # fmt: skip
    assert len({record.run for record in records}) == 1
    for record in records:
        assert record.ok, record.error
        assert record.device.kind is DeviceKind.HOST and record.device.cores
        assert [entry.phase for entry in record.phases] == list(Phase)
        assert record.check is not None and record.check.compared == record.check.equal > 0
        assert record.speed is not None and len(record.speed.decode_seconds) == 5
        assert record.planned is not None
        assert record.planned.cache == bundle.manifest.memory.cache
        assert record.before.memory_available and record.stream_read_gb_s


def test_a_bundle_that_computes_something_else_is_never_a_result(
    host: HostDevice, bundle: Bundle, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(bundle.path, wrong)
    record = wrong / "parity.safetensors"
    content = load_file(record)
    # The record of another model, whose leads are far beyond rounding.
    content["tokens"][-3:] = (content["tokens"][-3:] + 1) % bundle.manifest.model.vocab_size
    content["margins"][:] = 100.0
    save_file(content, record)
    write_manifest(wrong, bundle.manifest.model_copy(update={"files": describe_files(wrong)}))
    records = run_suite([open_bundle(wrong)], host, QUICK, tmp_path / "results.jsonl")
    assert [r.error.kind for r in records if r.error] == [ErrorKind.WRONG_TOKENS] * 2
    assert len(records) == 2, "a series ends with its first failure"


def test_a_bundle_without_a_parity_record_is_refused(
    host: HostDevice, bundle: Bundle, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(bundle.path, bare)
    (bare / "parity.safetensors").unlink()
    write_manifest(bare, bundle.manifest.model_copy(update={"files": describe_files(bare)}))
    with pytest.raises(BundleError, match="no parity record"):
        run_suite([open_bundle(bare)], host, QUICK, tmp_path / "results.jsonl")
    assert not (tmp_path / "results.jsonl").exists()


def _interrupt(device: HostDevice, job: Job) -> Ending:
    HostDevice.run(device, job)
    raise KeyboardInterrupt


def _lose(device: HostDevice, job: Job) -> Ending:
    raise DeviceError(ErrorKind.DEVICE_LOST, "the cable is out")


@pytest.mark.parametrize(
    ("what", "raised", "kind"),
    [
        (_interrupt, KeyboardInterrupt, ErrorKind.INTERRUPTED),
        (_lose, DeviceError, ErrorKind.DEVICE_LOST),
    ],
)
def test_what_was_measured_survives_an_end_and_resume_goes_on(
    host: HostDevice,
    bundle: Bundle,
    tmp_path: Path,
    what: Callable[[HostDevice, Job], Ending],
    raised: type[BaseException],
    kind: ErrorKind,
) -> None:
    output = tmp_path / "results.jsonl"
    with pytest.raises(raised):
        run_suite([bundle], Interfering(4, what), QUICK, output)
    kept = list(read_records(output))
    assert [record.error and record.error.kind for record in kept] == [None, None, None, kind]
    # A process that was killed while it wrote.
    with output.open("a") as file:
        file.write(kept[0].model_dump_json()[:80])

    rest = run_suite([bundle], host, QUICK, output, resume=True)
    assert len(rest) == 3
    assert rest[0].run == kept[0].run
    done = [record for record in read_records(output) if record.ok]
    assert len({_key(record) for record in done}) == len(done) == 6
    assert run_suite([bundle], host, QUICK, output, resume=True) == []


def test_results_are_never_written_over(host: HostDevice, bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    output.write_text("{}\n")
    with pytest.raises(UsageError, match="has results"):
        run_suite([bundle], host, QUICK, output)
    assert output.read_text() == "{}\n"


def test_a_crash_and_a_hang_end_their_series_alone(bundle: Bundle, tmp_path: Path) -> None:
    crash = Failure(kind=ErrorKind.CRASH, message="killed by SIGSEGV")
    device = Interfering(1, lambda device, job: Ending(-11, crash))
    records = run_suite([bundle], device, QUICK, tmp_path / "crash.jsonl")
    assert [(r.options.depth, r.ok) for r in records] == [(0, False), (20, True), (20, True),
                                                          (20, True)]  # fmt: skip
    assert records[0].error == crash
    hang = replace(QUICK, timeout=0.001)
    records = run_suite([bundle], HostDevice(), hang, tmp_path / "hang.jsonl")
    assert [r.error.kind for r in records if r.error] == [ErrorKind.TIMEOUT] * 2


def test_a_process_that_a_signal_ends_is_told_by_the_signal(bundle: Bundle, tmp_path: Path) -> None:
    class Killed(HostDevice):
        """The host with a runner that dies as soon as it starts."""

        def push(self, bundle: Bundle) -> None:
            script = tmp_path / "runner"
            script.write_text("#!/bin/sh\nkill -SEGV $$\n")
            script.chmod(0o755)
            self._runners[bundle.manifest.options.target] = script

    records = run_suite([bundle], Killed(), QUICK, tmp_path / "results.jsonl")
    assert records[0].error is not None
    assert records[0].error.kind is ErrorKind.CRASH
    assert "SIGSEGV" in records[0].error.message


def test_depths_beyond_the_context_are_refused_before_anything_runs(
    host: HostDevice, bundle: Bundle, tmp_path: Path
) -> None:
    deep = replace(QUICK, depths=(0, 10_000))
    with pytest.raises(UsageError, match="do not fit"):
        run_suite([bundle], host, deep, tmp_path / "results.jsonl")


def test_no_half_written_file_is_taken_for_results(
    host: HostDevice, bundle: Bundle, tmp_path: Path
) -> None:
    output = tmp_path / "results.jsonl"
    output.write_text(json.dumps({"schema_version": 99}) + "\n")
    with pytest.raises(OnekvError, match="schema version 99"):
        run_suite([bundle], host, QUICK, output, resume=True)


def test_prompts_are_the_same_everywhere() -> None:
    assert synthetic_tokens(5, 1000) == synthetic_tokens(9, 1000)[:5]
    assert max(synthetic_tokens(500, 7)) == 6
    # Fixed for good: a figure of last year is comparable with one of today.
    assert synthetic_tokens(4, 1000) == (493, 985, 816, 844)


def test_the_prefill_is_planned_with_the_calls_that_only_fill_the_cache(bundle: Bundle) -> None:
    """The runner counts them to that phase, so their activations are its largest."""

    def activations(depth: int, prompt: int) -> int | None:
        options = Options(depth=depth, prompt_tokens=prompt, decode_tokens=4)
        return planned_memory(bundle.manifest, options).activations

    assert activations(48, 8) == activations(0, 48) == activations(8, 48)
    assert (activations(0, 8) or 0) < (activations(48, 8) or 0)
