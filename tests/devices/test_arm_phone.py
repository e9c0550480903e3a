"""The whole path to a phone of 64-bit ARM: cross-built, pushed, run under an emulator, recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onekv.bench.devices.adb import Adb
from onekv.bench.devices.android import AndroidDevice
from onekv.bench.devices.android_programs import ONNXRUNTIME, phone_programs
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.export.bundle import Bundle
from onekv.runtime.platforms import Platform
from tests.devices.conftest import MakePhone
from tests.devices.recordings import PIXEL
from tests.targets.onnx.test_arm import ARM_RUNTIME, CPUINFO, reason

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason() is not None, reason=str(reason())),
]


def test_an_arm_phone_gives_the_bundles_tokens(
    make_phone: MakePhone, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime,) = ARM_RUNTIME.glob("onnxruntime/capi/libonnxruntime.so.*")
    monkeypatch.setenv(ONNXRUNTIME, str(runtime))
    phone = make_phone(replace(PIXEL, files={**PIXEL.files, "/proc/cpuinfo": CPUINFO}))
    device = AndroidDevice(
        Adb(phone.serial), lambda bundle: phone_programs(bundle, Platform.LINUX_AARCH64)
    )
    options = SuiteOptions(
        prompt_tokens=12, decode_tokens=6, repetitions=1, warm_ups=0, threads=1, sampling_ms=5
    )
    (record,) = run_suite([bundle], device, options, tmp_path / "results.jsonl")
    assert record.error is None and record.ok
    assert record.check is not None and record.check.compared == record.check.equal
    assert record.device.model == "Pixel 9 Pro"
    assert record.runner is not None and len(record.phases) == 5
