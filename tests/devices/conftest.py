"""Phones that the real adb client is connected to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onekv.bench.devices.adb import Adb
from onekv.bench.devices.android import AndroidDevice, Programs
from onekv.export.bundle import Bundle, open_bundle
from onekv.runtime.runner_build import build_runner, onnx_runtime_library
from tests.devices.adbd import Phone, Recordings
from tests.devices.recordings import PIXEL

MakePhone = Callable[..., Phone]


@pytest.fixture(scope="session")
def adb_server() -> Iterator[None]:
    """An adb server of these tests alone, on a port of its own."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed: apt-get install adb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    before = os.environ.get("ANDROID_ADB_SERVER_PORT")
    os.environ["ANDROID_ADB_SERVER_PORT"] = port
    subprocess.run(["adb", "start-server"], check=True, capture_output=True)
    yield
    subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
    if before is None:
        del os.environ["ANDROID_ADB_SERVER_PORT"]
    else:
        os.environ["ANDROID_ADB_SERVER_PORT"] = before


@pytest.fixture
def make_phone(adb_server: None, tmp_path: Path) -> Iterator[MakePhone]:
    """A function that gives another connected phone."""
    phones: list[Phone] = []

    def make(recordings: Recordings = PIXEL, shell_v2: bool = True) -> Phone:
        phone = Phone(tmp_path / f"phone{len(phones)}", recordings, shell_v2)
        phones.append(phone)
        subprocess.run(["adb", "connect", phone.serial], check=True, capture_output=True)
        return phone

    yield make
    for phone in phones:
        phone.close()
        subprocess.run(["adb", "disconnect", phone.serial], check=False, capture_output=True)


@pytest.fixture
def phone(make_phone: MakePhone) -> Phone:
    """A Pixel."""
    return make_phone()


@pytest.fixture(scope="session")
def bundle(sample_bundle: Path) -> Bundle:
    """The sample model for ONNX Runtime."""
    return open_bundle(sample_bundle)


@pytest.fixture(scope="session")
def host_programs() -> Programs:
    """The real runner: the phone's shell is the host's, so the host's runner runs on it."""
    return Programs(runner=build_runner("onnx"), runtime=onnx_runtime_library())


def connect(phone: Phone, programs: Programs) -> AndroidDevice:
    """A device that gives up soon on a phone that is gone."""
    adb = Adb(phone.serial, patience=6.0, answer=20.0)
    return AndroidDevice(adb, lambda bundle: programs)
