"""An iPhone by devicectl's documented answers. Nothing here has met an iPhone or a Mac."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onekv.bench.devices.base import DeviceError
from onekv.bench.devices.devicectl import Devicectl, choose_udid, jetsam_reason, signal_of
from onekv.bench.devices.ios import IOSDevice
from onekv.bench.record_file import read_records
from onekv.bench.records import DeviceKind, ErrorKind
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.errors import UsageError
from onekv.export.bundle import Bundle
from tests.devices import xcrun
from tests.devices.test_android import job
from tests.devices.xcrun import UDID, jetsam_report

APP = "com.example.bench"

STATE = '{"event":"state","thermal":"fair","battery":81,"charging":true}'


@pytest.fixture
def iphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an iPhone that xcrun answers for."""
    programs, home = tmp_path / "bin", tmp_path / "iphone"
    programs.mkdir()
    (home / "files").mkdir(parents=True)
    program = programs / "xcrun"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {xcrun.__file__} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("IPHONE", str(home))
    return home


@pytest.fixture
def device(iphone: Path) -> Iterator[IOSDevice]:
    found = IOSDevice(Devicectl(choose_udid(None)), APP)
    yield found
    found.close()


def app(iphone: Path, body: str) -> None:
    """What the app does when it is launched; $1 is its job."""
    program = iphone / "app"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def fail(iphone: Path, command: str, words: str | dict[str, Any]) -> None:
    (iphone / "fail.json").write_text(json.dumps({command: words}))


def test_an_iphone_is_described(device: IOSDevice) -> None:
    info = device.describe()
    assert (info.kind, info.id, info.model) == (DeviceKind.IOS, UDID, "iPhone 15 Pro")
    assert (info.system, info.build, info.cpu) == ("iOS 18.5", "22F76", "iPhone16,1")
    assert device.state().thermal is None


def test_a_job_runs_in_the_app_and_its_lines_come_back(
    iphone: Path, device: IOSDevice, bundle: Bundle
) -> None:
    device.push(bundle)
    app(iphone, f"cp $1 seen.json; echo '{STATE}' > Documents/onekv/output.jsonl")
    assert device.run(job(bundle)).code == 0
    seen = json.loads((iphone / "files/seen.json").read_text())
    assert seen["decode"] == 8 and seen["prompt"] == list(range(1, 21))
    assert (iphone / "files" / seen["bundle"] / seen["entry"]).is_file()
    assert device.pull() == STATE + "\n"
    state = device.state()
    assert (state.thermal, state.battery, state.charging) == ("fair", 81, True)


def test_a_bundle_is_copied_once(iphone: Path, device: IOSDevice, bundle: Bundle) -> None:
    device.push(bundle)
    fail(iphone, "device copy to", "must not be called")
    device.push(bundle)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("per-process-limit", ErrorKind.OUT_OF_MEMORY), (None, ErrorKind.CRASH)],
)
def test_jetsam_is_told_from_other_kills(
    iphone: Path, device: IOSDevice, bundle: Bundle, reason: str | None, kind: ErrorKind
) -> None:
    (iphone / "crashes").mkdir()
    report = iphone / "crashes/JetsamEvent-2026-01-02-030405.ips"
    report.write_text(jetsam_report("bench", reason))
    app(iphone, f"echo '{STATE}' > Documents/onekv/output.jsonl; kill -9 $$")
    ending = device.run(job(bundle))
    assert ending.code == 137 and ending.failure is not None
    assert ending.failure.kind is kind
    assert device.pull() == STATE + "\n"


def test_a_crash_is_a_crash(iphone: Path, device: IOSDevice, bundle: Bundle) -> None:
    app(iphone, "kill -11 $$")
    ending = device.run(job(bundle))
    assert ending.failure is not None and ending.failure.kind is ErrorKind.CRASH
    assert "SIGSEGV" in ending.failure.message


def test_an_app_that_does_not_end_is_stopped(
    iphone: Path, device: IOSDevice, bundle: Bundle
) -> None:
    app(iphone, "exec sleep 2")
    ending = device.run(job(bundle, timeout=0.5))
    assert ending.failure is not None and ending.failure.kind is ErrorKind.TIMEOUT


@pytest.mark.parametrize(
    ("command", "words", "kind"),
    [
        ("device copy to", "There is not enough space on the device.", ErrorKind.DEVICE_FULL),
        ("device copy to", "The device is locked.", ErrorKind.DEVICE_LOST),
        ("device info", "The specified device was not found.", ErrorKind.DEVICE_LOST),
    ],
)
def test_what_devicectl_refuses_is_told_in_its_words(
    iphone: Path, device: IOSDevice, bundle: Bundle, command: str, words: str, kind: ErrorKind
) -> None:
    fail(iphone, command, words)
    with pytest.raises(DeviceError, match=words[:30]) as error:
        device.describe() if "info" in command else device.push(bundle)
    assert error.value.kind is kind and "--resume" in str(error.value.fix)


FAILED = (
    "ERROR: The application failed to launch. (com.apple.dt.CoreDeviceError error 10002 (0x2712))\n"
)
LOCKED = f"""{FAILED}       BundleIdentifier = com.example.bench
           The request was denied by service delegate (SBMainWorkspace) for reason: Locked \
("Unable to launch com.example.bench because the device was not, or could not be, unlocked").
"""
NOT_INSTALLED = f"""{FAILED}       BundleIdentifier = com.example.bench
       NSLocalizedFailureReason = The requested application com.example.bench is not installed.
       NSLocalizedRecoverySuggestion = Provide a valid bundle identifier.
"""
NOT_TRUSTED = f"""{FAILED}           Unable to launch com.example.bench because it has an \
invalid code signature, inadequate entitlements or its profile has not been explicitly \
trusted by the user.
"""
UNKNOWN = "ERROR: The specified device was not found. (com.apple.dt.CoreDeviceError error 1000)\n"


@pytest.mark.parametrize(
    ("words", "message", "fix", "kind"),
    [
        (LOCKED, "the iPhone is locked", "Auto-Lock", ErrorKind.DEVICE_LOST),
        (NOT_INSTALLED, "is not installed", "ONEKV_IOS_APP", ErrorKind.USAGE),
        (NOT_TRUSTED, "does not trust", "VPN & Device Management", ErrorKind.USAGE),
        (UNKNOWN, "the iPhone is gone", "--resume", ErrorKind.DEVICE_LOST),
        ("ERROR: Something new.\n", "devicectl: ERROR: Something new", "", ErrorKind.DEVICE_LOST),
    ],
    ids=["locked", "not installed", "not trusted", "gone", "unknown"],
)
def test_an_app_that_is_not_launched_is_no_result(
    iphone: Path,
    device: IOSDevice,
    bundle: Bundle,
    words: str,
    message: str,
    fix: str,
    kind: ErrorKind,
) -> None:
    (iphone / "refusal.txt").write_text(words)
    with pytest.raises(DeviceError, match=message) as error:
        device.run(job(bundle))
    assert error.value.kind is kind and fix in str(error.value.fix)


def test_what_an_earlier_job_told_is_not_taken_for_a_result(
    iphone: Path, device: IOSDevice, bundle: Bundle
) -> None:
    app(iphone, f"echo '{STATE}' >> Documents/onekv/output.jsonl")
    device.run(job(bundle))
    assert device.pull() == STATE + "\n"
    app(iphone, "exit 0")
    device.run(job(bundle))
    assert device.pull() == ""


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (("ContainerLookupErrorDomain", -1, "No container."), "is not installed"),
        (("MobileStorageMounterErrorDomain", 2, "Developer Mode is disabled."), "Mode is off"),
        (("FBSOpenApplicationErrorDomain", 7, "The device is locked."), "iPhone is locked"),
    ],
)
def test_the_reason_inside_of_an_error_is_told(
    iphone: Path, device: IOSDevice, bundle: Bundle, inner: tuple[str, int, str], message: str
) -> None:
    fail(iphone, "device copy", xcrun.refused("The operation failed.", *inner))
    with pytest.raises(DeviceError, match=message):
        device.push(bundle)


@pytest.mark.parametrize("status", ["disabled", {"disabled": {}}])
def test_an_iphone_without_developer_mode_is_refused_at_once(iphone: Path, status: object) -> None:
    phones = [xcrun.device(developer_mode=status)]
    (iphone / "devices.json").write_text(json.dumps(phones))
    with pytest.raises(DeviceError, match="Developer Mode is off") as error:
        choose_udid(UDID)
    assert "Privacy & Security" in str(error.value.fix)


def test_what_was_measured_survives_an_iphone_that_goes_away(
    iphone: Path, device: IOSDevice, bundle: Bundle, tmp_path: Path
) -> None:
    end = 'echo {\\"event\\":\\"end\\"} > Documents/onekv/output.jsonl'
    app(iphone, f"{end}; rm Documents/onekv/*/complete.txt")
    output = tmp_path / "results.jsonl"
    quick = SuiteOptions(repetitions=1, warm_ups=0, prompt_tokens=8, decode_tokens=8)
    run_suite([bundle], device, quick, output)
    (record,) = read_records(output)
    assert record.error is not None and record.error.kind is ErrorKind.WRONG_TOKENS
    fail(iphone, "device copy to", "The device was disconnected.")
    with pytest.raises(DeviceError, match="disconnected"):
        run_suite([bundle], device, quick, output, resume=True)
    assert len(list(read_records(output))) == 1


def test_one_iphone_has_to_be_meant(iphone: Path) -> None:
    others = [xcrun.device("A"), xcrun.device("B"), xcrun.device("C", tunnel="unavailable")]
    (iphone / "devices.json").write_text(json.dumps(others))
    with pytest.raises(UsageError, match="2 iPhones are connected"):
        choose_udid(None)
    assert choose_udid("B") == "B"
    with pytest.raises(DeviceError, match="no iPhone 'D'") as error:
        choose_udid("D")
    assert "A (iPhone 15 Pro)" in str(error.value.fix)
    with pytest.raises(DeviceError, match="knows the iPhone 'C' and does not reach it"):
        choose_udid("C")


def test_without_a_mac_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="xcrun is not installed"):
        choose_udid(None)


def test_words_of_an_end_are_read() -> None:
    assert signal_of("Launched.\nApp terminated due to signal 9.") == 9
    assert signal_of("Waiting for the application to terminate") is None
    assert (
        jetsam_reason(jetsam_report("bench", "per-process-limit"), "bench") == "per-process-limit"
    )
    for broken in ("", "{}", "{}\n[]", '{}\n{"processes": [1]}', jetsam_report("bench", None)):
        assert jetsam_reason(broken, "bench") is None
