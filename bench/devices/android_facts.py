"""What an Android phone says of itself, taken from its own words. Nothing of it is trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onekv.bench.records import DeviceInfo, DeviceKind, DeviceState

_MARK = "onekv-part"

# android.os.PowerManager.THERMAL_STATUS_*
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CHARGING, _FULL = 2, 5

_INFO = {
    "manufacturer": "getprop ro.product.manufacturer",
    "model": "getprop ro.product.model",
    "release": "getprop ro.build.version.release",
    "build": "getprop ro.build.fingerprint",
    "soc": "getprop ro.soc.model",
    "platform": "getprop ro.board.platform",
    "cores": "nproc",
    "memory": "cat /proc/meminfo",
}
_STATE = {
    "governor": "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "thermal": "dumpsys thermalservice",
    "zones": "cat /sys/class/thermal/thermal_zone*/temp",
    "battery": "dumpsys battery",
    "power": "dumpsys power",
    "memory": "cat /proc/meminfo",
}


def info_script() -> str:
    """A script whose output `parse_info` reads."""
    return script(_INFO)


def state_script() -> str:
    """A script whose output `parse_state` reads."""
    return script(_STATE)


def script(commands: Mapping[str, str]) -> str:
    """A script that runs all of them; `said` takes its output apart."""
    return "\n".join(f"echo {_MARK} {name}; {what} 2>/dev/null" for name, what in commands.items())


def said(text: str) -> dict[str, str]:
    """What each command of a script said, those left out that said nothing."""
    pieces = re.split(rf"^{_MARK} (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: words.strip() for name, words in zip(pieces[::2], pieces[1::2]) if words.strip()}


def parse_info(serial: str, text: str) -> DeviceInfo:
    """What the phone is; null for what it does not say."""
    parts = said(text)
    release = parts.get("release")
    return DeviceInfo(
        kind=DeviceKind.ANDROID,
        id=serial,
        manufacturer=parts.get("manufacturer"),
        model=parts.get("model"),
        system=f"Android {release}" if release else None,
        build=parts.get("build"),
        cpu=parts.get("soc") or parts.get("platform"),
        cores=_number(r"^(\d{1,4})$", parts.get("cores")),
        memory=_kibibytes("MemTotal", parts),
    )


def parse_state(text: str) -> DeviceState:
    """How the phone is now; null for what it does not say."""
    parts = said(text)
    battery, power = parts.get("battery", ""), parts.get("power", "")
    level = _number(r"^\s*level: (\d{1,3})$", battery)
    status = _number(r"^\s*status: (\d)$", battery)
    awake = re.search(r"mWakefulness=(\w+)", power)
    return DeviceState(
        governor=parts.get("governor"),
        thermal=_thermal(parts.get("thermal", "")),
        temperature=_hottest(parts),
        battery=level if level is not None and level <= 100 else None,
        charging=None if status is None else status in (_CHARGING, _FULL),
        screen_on=None if awake is None else awake[1] == "Awake",
        memory_available=_kibibytes("MemAvailable", parts),
    )


def kill_line(log: str, pid: int) -> str | None:
    """The line in which the low-memory killer, or the kernel, says that it killed a process."""
    words = r"lmkd|lowmemorykiller|Out of memory|oom-kill|oom_reaper"
    return _line(log, rf"(?:{words}).*\b{pid}\b")


def crash_line(log: str, pid: int) -> str | None:
    """The line in which the phone tells why a process crashed."""
    return _line(log, rf"(?:Fatal signal|Abort message).*\b{pid}\b") or _line(
        log, rf"\b{pid}\b.*(?:Fatal signal|Abort message)"
    )


def _line(log: str, pattern: str) -> str | None:
    found = re.findall(rf"^.*{pattern}.*$", log, re.MULTILINE)
    return found[-1].strip() if found else None


def _number(pattern: str, text: str | None) -> int | None:
    found = re.search(pattern, text or "", re.MULTILINE)
    return int(found[1]) if found else None


def _kibibytes(name: str, parts: Mapping[str, str]) -> int | None:
    count = _number(rf"^{name}:\s+(\d{{1,15}}) kB", parts.get("memory"))
    return count * 1024 if count else None


def _thermal(text: str) -> str | None:
    status = _number(r"Thermal Status: (\d)", text)
    return _THERMAL[status] if status is not None and status < len(_THERMAL) else None


def _hottest(parts: Mapping[str, str]) -> float | None:
    """Of the sensors that the thermal service reads now, else of the kernel's zones."""
    current = parts.get("thermal", "").partition("Current temperatures from HAL")[2]
    current = current.partition("Current cooling devices")[0]
    degrees = [float(t) for t in re.findall(r"mValue=(-?\d{1,4}(?:\.\d{1,6})?)", current)]
    if not degrees:
        zones = re.findall(r"^-?\d{1,7}$", parts.get("zones", ""), re.MULTILINE)
        degrees = [int(zone) / 1000 for zone in zones]
    # Sensors that are not there report absurd values.
    return max((t for t in degrees if 0 < t < 150), default=None)
