"""Short names for what was measured, distinct within one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onekv.bench.records import BundleInfo, DeviceInfo


class Labels:
    """A bundle's name, with its device where there are several, and its hash where names clash."""

    def __init__(self, subjects: Iterable[tuple[BundleInfo, DeviceInfo]]) -> None:
        pairs = list(dict.fromkeys(subjects))
        self._devices = {device for _, device in pairs}
        hashes = {(bundle.name, bundle.manifest_sha256) for bundle, _ in pairs}
        self._clashes = {name for name, n in Counter(n for n, _ in hashes).items() if n > 1}
        self._colours = {pair: place for place, pair in enumerate(pairs)}

    def name(self, bundle: BundleInfo, device: DeviceInfo) -> str:
        """For tables and legends."""
        name = bundle.name
        if name in self._clashes:
            name += f" {bundle.manifest_sha256[:8]}"
        return name if len(self._devices) < 2 else f"{name} on {device_name(device)}"

    def colour(self, bundle: BundleInfo, device: DeviceInfo) -> int:
        """The same throughout a report."""
        return self._colours[bundle, device]


def device_name(device: DeviceInfo) -> str:
    """Its model and how it is reached."""
    return f"{device.model or device.kind} ({device.id})"
