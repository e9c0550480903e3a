"""The host as a device, and a bundle on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onekv.bench.devices.host import HostDevice
from onekv.bench.devices.open import open_device
from onekv.bench.suite import SuiteOptions
from onekv.export.bundle import Bundle, open_bundle

QUICK = SuiteOptions(
    depths=(0, 20), prompt_tokens=12, decode_tokens=6, repetitions=2, warm_ups=1, sampling_ms=1
)
"""Six iterations of a tiny bundle, of some 50 ms each."""


@pytest.fixture(scope="session")
def bundle(sample_bundle: Path) -> Bundle:
    return open_bundle(sample_bundle)


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with open_device("host") as device:
        assert isinstance(device, HostDevice)
        yield device
