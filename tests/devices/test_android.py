"""A phone over the real adb client: what it says, what runs on it, and how it fails."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from onekv.bench.devices.adb import Adb, choose_serial
from onekv.bench.devices.android import AndroidDevice, Programs
from onekv.bench.devices.android_gpu import add_gpu, gpu_bytes
from onekv.bench.devices.base import DeviceError, Job
from onekv.bench.records import DeviceState, ErrorKind, Options, Phase
from onekv.bench.run_output import parse_output
from onekv.errors import UsageError
from onekv.export.bundle import Bundle
from onekv.export.options import Profile
from tests.devices.adbd import Phone
from tests.devices.conftest import MakePhone, connect
from tests.devices.faults import Act, Fault
from tests.devices.recordings import HOSTILE, MEMINFO, PIXEL, SILENT, SUMMARY, UNTOLD

PROMPT = tuple(range(1, 21))


def job(bundle: Bundle, timeout: float = 60.0, decode: int = 8) -> Job:
    options = Options(depth=4, prompt_tokens=16, decode_tokens=decode, threads=1, sampling_ms=5)
    return Job(bundle, options, PROMPT, check=PROMPT, check_prompt=12, timeout=timeout)


@pytest.fixture
def sleeper(tmp_path: Path) -> Programs:
    """A runner that says one thing and then takes a long time."""
    program = tmp_path / "sleeper"
    program.write_text('#!/bin/sh\necho \'{"event":"start"}\'\nexec sleep 60\n')
    program.chmod(0o755)
    return Programs(program)


@pytest.fixture
def device(phone: Phone, host_programs: Programs, bundle: Bundle) -> AndroidDevice:
    """A phone with the runner and the bundle in place."""
    ready = connect(phone, host_programs)
    ready.push(bundle)
    return ready


def test_a_phone_is_described_in_its_own_words(phone: Phone, host_programs: Programs) -> None:
    device = connect(phone, host_programs)
    info = device.describe()
    assert (info.manufacturer, info.model, info.system) == ("Google", "Pixel 9 Pro", "Android 16")
    assert info.build is not None and info.build.endswith("release-keys")
    assert (info.cpu, info.memory) == ("Tensor G4", 15898372 * 1024)
    assert device.state() == DeviceState(
        governor="sched_pixel",
        thermal="light",
        temperature=45.6,
        battery=83,
        charging=True,
        screen_on=True,
        memory_available=9123456 * 1024,
    )


def test_what_a_phone_does_not_tell_is_null(make_phone: MakePhone, host_programs: Programs) -> None:
    device = connect(make_phone(SILENT), host_programs)
    info, state = device.describe(), device.state()
    assert info.model is None and info.memory is None and info.system is None
    assert state.thermal is None and state.battery is None and state.screen_on is None
    assert state.memory_available is None


def test_what_a_phone_says_is_not_believed(make_phone: MakePhone, host_programs: Programs) -> None:
    device = connect(make_phone(HOSTILE), host_programs)
    info, state = device.describe(), device.state()
    assert info.model is not None and info.model.isprintable() and len(info.model) <= 200
    assert info.memory is None and state.battery is None and state.thermal is None


def test_gpu_memory_is_what_the_driver_accounts_for_and_never_zero() -> None:
    assert gpu_bytes(MEMINFO) == (51200 + 64) * 1024
    assert gpu_bytes(SUMMARY) == 51264 * 1024


@pytest.mark.parametrize("meminfo", UNTOLD.values(), ids=UNTOLD.keys())
def test_gpu_memory_that_a_phone_does_not_tell_is_null(meminfo: str) -> None:
    assert gpu_bytes(meminfo) is None


@pytest.mark.parametrize("output", ["", "no JSON\n", "[1]\n", '{"event":"phase","phase":"loaded"'])
def test_lines_that_end_anywhere_are_kept_as_they_are(output: str) -> None:
    assert add_gpu(output, {"loaded": 1024}) == output


def on_gpu(bundle: Bundle) -> Bundle:
    """The bundle as one whose weights are the GPU's: it only makes the phone be asked."""
    manifest = bundle.manifest
    options = replace(manifest.options, profile=Profile.GPU)
    return replace(bundle, manifest=manifest.model_copy(update={"options": options}))


@pytest.mark.parametrize(
    ("meminfo", "expected"),
    [(MEMINFO, (51200 + 64) * 1024), (UNTOLD["more than a phone has"], None)],
    ids=["told", "garbage"],
)
def test_gpu_memory_is_recorded_at_the_end_of_every_phase(
    make_phone: MakePhone,
    host_programs: Programs,
    bundle: Bundle,
    meminfo: str,
    expected: int | None,
) -> None:
    phone = make_phone(replace(PIXEL, dumpsys={**PIXEL.dumpsys, "meminfo": meminfo}))
    device, wanted = connect(phone, host_programs), on_gpu(bundle)
    device.push(wanted)
    assert device.run(job(wanted)).code == 0
    phases = parse_output(device.pull()).phases
    assert [entry.phase for entry in phases] == list(Phase)
    assert [entry.end.gpu for entry in phases] == [expected] * len(phases)
    assert all(entry.end.pss_anon for entry in phases)
    # A bundle without a GPU does not ask, and takes nothing over from the run before.
    device.run(job(bundle))
    assert [entry.end.gpu for entry in parse_output(device.pull()).phases] == [None] * len(Phase)


@pytest.mark.parametrize("shell_v2", [True, False])
def test_the_runner_measures_on_the_phone(
    make_phone: MakePhone, host_programs: Programs, bundle: Bundle, shell_v2: bool
) -> None:
    device = connect(make_phone(shell_v2=shell_v2), host_programs)
    device.push(bundle)
    assert device.run(job(bundle)).code == 0
    events = [json.loads(line) for line in device.pull().splitlines()]
    assert [e["phase"] for e in events if e["event"] == "phase"] == [
        "baseline",
        "loaded",
        "prefill",
        "decode",
        "after",
    ]
    assert events[-1] == {"event": "end"}
    rate = device.stream_read(1)
    assert rate is not None and rate > 0.1


def test_the_exit_code_of_the_runner_comes_back(device: AndroidDevice, bundle: Bundle) -> None:
    too_long = Job(bundle, job(bundle).options, PROMPT * 20, (), 0, 60)
    options = too_long.options.model_copy(update={"depth": 300, "prompt_tokens": 100})
    ending = device.run(Job(bundle, options, PROMPT * 20, (), 0, 60))
    assert ending.code not in (0, None) and ending.failure is None
    assert '"error"' in device.pull()


def test_only_what_is_missing_is_copied(
    device: AndroidDevice, phone: Phone, bundle: Bundle
) -> None:
    copied = [text for service, text in phone.requests if service == "push"]
    assert any("model.onnx.data" in text for text in copied)
    phone.requests.clear()
    device.push(bundle)
    assert not [text for service, text in phone.requests if service == "push"]


def test_a_changed_file_is_noticed_and_not_used(
    phone: Phone, host_programs: Programs, bundle: Bundle
) -> None:
    device = connect(phone, host_programs)
    phone.faults.append(Fault("push", Act.CORRUPT, "model.onnx.data"))
    with pytest.raises(DeviceError, match="was changed between") as error:
        device.push(bundle)
    assert error.value.kind is ErrorKind.CORRUPT_FILE
    device.push(bundle)
    assert device.run(job(bundle)).code == 0


def test_results_that_change_on_the_way_are_refused(
    device: AndroidDevice, phone: Phone, bundle: Bundle
) -> None:
    device.run(job(bundle))
    phone.faults.append(Fault("pull", Act.CORRUPT))
    with pytest.raises(DeviceError, match="was changed between"):
        device.pull()
    assert device.pull().endswith('{"event":"end"}\n')


def test_a_full_phone_says_what_is_needed(
    phone: Phone, host_programs: Programs, bundle: Bundle
) -> None:
    device = connect(phone, host_programs)
    phone.faults.append(Fault("push", Act.FULL, "model.onnx.data", after=1000))
    with pytest.raises(DeviceError, match=f"{phone.serial} is full") as error:
        device.push(bundle)
    assert error.value.kind is ErrorKind.DEVICE_FULL and "--resume" in str(error.value.fix)


def test_a_killed_runner_is_out_of_memory_by_the_phones_own_log(
    phone: Phone, sleeper: Programs, bundle: Bundle
) -> None:
    device = connect(phone, sleeper)
    device.push(bundle)
    phone.faults.append(Fault("shell", Act.KILL, "output.jsonl 2>", after=0.5))
    ending = device.run(job(bundle))
    assert ending.failure is not None and ending.code == 137
    assert ending.failure.kind is ErrorKind.OUT_OF_MEMORY
    assert "lmkd" in ending.failure.message and "Reclaim" in ending.failure.message
    assert device.pull() == '{"event":"start"}\n'


def test_a_crashed_runner_is_a_crash(phone: Phone, sleeper: Programs, bundle: Bundle) -> None:
    device = connect(phone, sleeper)
    device.push(bundle)
    phone.say("08-13 16:02:50.000  999  999 I lmkd    : Reclaim 'another' (999), uid 10000")
    phone.faults.append(Fault("shell", Act.CRASH, "output.jsonl 2>", after=0.5))
    ending = device.run(job(bundle))
    assert ending.failure is not None
    assert ending.failure.kind is ErrorKind.CRASH and "SIGSEGV" in ending.failure.message


def test_a_run_that_does_not_end_is_stopped(
    phone: Phone, sleeper: Programs, bundle: Bundle
) -> None:
    device = connect(phone, sleeper)
    device.push(bundle)
    ending = device.run(job(bundle, timeout=1.0))
    assert ending.failure is not None and ending.failure.kind is ErrorKind.TIMEOUT
    pid = int(phone.path("/data/local/tmp/onekv/pid").read_text())
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


LOSSES = {
    Act.UNPLUG: "it answers again",
    Act.REBOOT: "it rebooted",
    Act.VANISH: "is gone: unplugged",
}


@pytest.mark.parametrize("act", LOSSES)
def test_a_phone_that_goes_away_during_a_run_says_how(
    phone: Phone, sleeper: Programs, bundle: Bundle, act: Act
) -> None:
    device = connect(phone, sleeper)
    device.push(bundle)
    phone.faults.append(Fault("shell", act, "output.jsonl 2>", after=0.3))
    with pytest.raises(DeviceError, match=LOSSES[act]) as error:
        device.run(job(bundle))
    assert error.value.kind is ErrorKind.DEVICE_LOST and "--resume" in str(error.value.fix)


def test_a_phone_that_goes_away_during_a_copy_is_gone(
    phone: Phone, host_programs: Programs, bundle: Bundle
) -> None:
    device = connect(phone, host_programs)
    phone.faults.append(Fault("push", Act.VANISH, "onnxruntime", after=100_000))
    with pytest.raises(DeviceError, match="is gone"):
        device.push(bundle)


def test_a_phone_that_stops_answering_is_not_waited_for(
    phone: Phone, host_programs: Programs
) -> None:
    adb = Adb(phone.serial, patience=1.0, answer=1.0)
    device = AndroidDevice(adb, lambda bundle: host_programs)
    phone.faults.append(Fault("shell", Act.STALL, "dumpsys battery"))
    with pytest.raises(DeviceError, match="did not answer for 1 s"):
        device.state()


def test_of_two_phones_one_has_to_be_named(make_phone: MakePhone) -> None:
    first, second = make_phone(), make_phone()
    with pytest.raises(UsageError, match="2 phones are connected") as error:
        choose_serial(None)
    assert first.serial in error.value.message and second.serial in error.value.message
    assert choose_serial(second.serial) == second.serial


def test_a_serial_that_is_not_there_is_told_with_those_that_are(phone: Phone) -> None:
    with pytest.raises(DeviceError, match="no phone 'nokia'") as error:
        choose_serial("nokia")
    assert phone.serial in str(error.value.fix)
    assert choose_serial(None) == phone.serial


def test_without_a_phone_it_says_so(adb_server: None) -> None:
    with pytest.raises(DeviceError, match="sees no phone"):
        choose_serial(None)


def _runs(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
