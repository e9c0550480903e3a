"""From the name that a person gives to the device that it means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from onekv.bench.devices.base import Device
from onekv.bench.records import DeviceKind
from onekv.errors import UsageError


@contextmanager
def open_device(name: str) -> Iterator[Device]:
    """The device `KIND[:ID]`, let go when the block ends.

    Raises:
        UsageError: no such kind.
        DeviceError: it is not there.
    """
    kind, _, identity = name.partition(":")
    if kind == DeviceKind.HOST and not identity:
        from onekv.bench.devices.host import HostDevice

        with closing(HostDevice()) as host:
            yield host
        return
    if kind == DeviceKind.ANDROID:
        from onekv.bench.devices.adb import Adb, choose_serial
        from onekv.bench.devices.android import AndroidDevice
        from onekv.bench.devices.android_programs import phone_programs

        with closing(AndroidDevice(Adb(choose_serial(identity or None)), phone_programs)) as phone:
            yield phone
        return
    if kind == DeviceKind.IOS:
        from onekv.bench.devices.devicectl import Devicectl, choose_udid
        from onekv.bench.devices.ios import IOSDevice

        with closing(IOSDevice(Devicectl(choose_udid(identity or None)))) as iphone:
            yield iphone
        return
    raise UsageError(
        f"no device {name!r}", "Choose host, android, android:SERIAL, ios or ios:UDID."
    )
