"""The suite on phones that fail: nothing measured is lost, and --resume goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onekv.bench.devices.android import Programs
from onekv.bench.devices.base import DeviceError
from onekv.bench.record_file import read_records
from onekv.bench.records import DeviceKind, ErrorKind
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.export.bundle import Bundle
from tests.devices.adbd import Phone
from tests.devices.conftest import MakePhone, connect
from tests.devices.faults import Act, Fault

QUICK = SuiteOptions(
    prompt_tokens=12, decode_tokens=6, repetitions=2, warm_ups=1, sampling_ms=1, threads=1
)
RUN = "output.jsonl 2>"


def test_a_phone_is_measured_like_the_host(
    phone: Phone, host_programs: Programs, bundle: Bundle, tmp_path: Path
) -> None:
    records = run_suite([bundle], connect(phone, host_programs), QUICK, tmp_path / "r.jsonl")
    assert len(records) == 3 and all(record.ok for record in records)
    first = records[0]
    assert first.device.kind is DeviceKind.ANDROID and first.device.id == phone.serial
    assert first.before.thermal == "light" and first.after is not None
    assert first.after.battery == 83


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act.UNPLUG, ErrorKind.DEVICE_LOST),
        pytest.param(Act.REBOOT, ErrorKind.DEVICE_LOST, marks=pytest.mark.slow),
        (Act.FULL, ErrorKind.DEVICE_FULL),
    ],
)
def test_what_was_measured_before_is_kept_and_the_rest_is_resumed(
    phone: Phone, host_programs: Programs, bundle: Bundle, tmp_path: Path, act: Act, kind: ErrorKind
) -> None:
    output = tmp_path / "results.jsonl"
    service = "push" if act is Act.FULL else "shell"
    phone.faults.append(Fault(service, act, "prompt.txt" if act is Act.FULL else RUN, count=2))
    with pytest.raises(DeviceError) as error:
        run_suite([bundle], connect(phone, host_programs), QUICK, output)
    assert error.value.kind is kind
    kept = list(read_records(output))
    assert [record.ok for record in kept] == [True, False]
    assert kept[-1].error is not None and kept[-1].error.kind is kind
    resumed = run_suite([bundle], connect(phone, host_programs), QUICK, output, resume=True)
    assert [record.iteration for record in resumed] == [0, 1]
    assert [r.ok for r in read_records(output)] == [True, False, True, True]


def test_a_phone_that_goes_after_the_run_has_been_measured(
    phone: Phone, host_programs: Programs, bundle: Bundle, tmp_path: Path
) -> None:
    output = tmp_path / "results.jsonl"
    phone.faults.append(Fault("shell", Act.UNPLUG, "dumpsys thermalservice", count=2))
    with pytest.raises(DeviceError, match="answers again"):
        run_suite([bundle], connect(phone, host_programs), QUICK, output)
    (record,) = read_records(output)
    assert record.speed is not None and record.check is not None and record.check.passed
    assert record.error is not None and record.error.kind is ErrorKind.DEVICE_LOST


def test_two_phones_are_measured_side_by_side(
    make_phone: MakePhone, host_programs: Programs, bundle: Bundle, tmp_path: Path
) -> None:
    first, second = make_phone(), make_phone()
    once = replace(QUICK, repetitions=1, warm_ups=0)
    for phone in (first, second):
        run_suite([bundle], connect(phone, host_programs), once, tmp_path / phone.serial)
    for phone in (first, second):
        assert {r.device.id for r in read_records(tmp_path / phone.serial)} == {phone.serial}
