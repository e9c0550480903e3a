"""Stands in for `xcrun devicectl`: answers in its documented form, an app's folder on the host.

Made up after Xcode's own help and answers that projects have published. The iPhone's state lies
in the folder that IPHONE names: `files/` is the app's container, `app` is what its launch runs,
`fail.json` maps a command to the error that it gives.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

UDID = "00008130-000A1B2C3D4E001C"
HOME = Path(os.environ.get("IPHONE", "."))


def device(
    udid: str = UDID,
    tunnel: str = "connected",
    reality: str = "physical",
    developer_mode: object = "enabled",
) -> dict[str, Any]:
    """One entry of `list devices`, which is also the answer of `device info details`."""
    return {
        "capabilities": [],
        "connectionProperties": {
            "pairingState": "paired",
            "transportType": "wired",
            "tunnelState": tunnel,
        },
        "deviceProperties": {
            "bootState": "booted",
            "developerModeStatus": developer_mode,
            "name": "A phone",
            "osBuildUpdate": "22F76",
            "osVersionNumber": "18.5",
        },
        "hardwareProperties": {
            "cpuType": {"name": "arm64e"},
            "marketingName": "iPhone 15 Pro",
            "platform": "iOS",
            "productType": "iPhone16,1",
            "reality": reality,
            "udid": udid,
        },
        "identifier": "E7D43088-7946-5FDB-BB14-E38124BB37DB",
    }


def jetsam_report(process: str, reason: str | None) -> str:
    """A JetsamEvent file: a header line, then a document that lists processes."""
    killed = {"name": process, "pid": 512, "rpages": 201_000, "states": ["frontmost"]}
    if reason is not None:
        killed["reason"] = reason
    body = {"largestProcess": process, "processes": [{"name": "SpringBoard", "pid": 30}, killed]}
    return json.dumps({"bug_type": "298"}) + "\n" + json.dumps(body, indent=2)


def main(arguments: list[str]) -> int:
    """Answer one command."""
    options = _options(arguments)
    command = " ".join(word for word in arguments[1:4] if not word.startswith("-"))
    failures = _json(HOME / "fail.json")
    for prefix, words in failures.items():
        if command.startswith(prefix):
            return _answer(options, error=words)
    if command.startswith("list devices"):
        return _answer(options, {"devices": _json(HOME / "devices.json") or [device()]})
    if command.startswith("device info details"):
        return _answer(options, device())
    if command.startswith("device copy"):
        return _copy(command.split()[2], options)
    return _launch(arguments)


def _copy(direction: str, options: dict[str, str]) -> int:
    there = HOME / ("crashes" if options["domain-type"] == "systemCrashLogs" else "files")
    source, destination = Path(options["source"]), Path(options["destination"])
    if direction == "from":
        source = there / source
    else:
        destination = there / destination
    if not source.exists():
        missing = f"Failed to retrieve the file node for {options['source']}"
        return _answer(options, error=missing)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, destination)
    return _answer(options, {})


def refused(told: str, domain: str, code: int, reason: str) -> dict[str, Any]:
    """An error of CoreDevice around the one of the service that refused."""
    inner = {"code": code, "domain": domain, "userInfo": {"NSLocalizedDescription": _text(reason)}}
    about = {"NSLocalizedDescription": _text(told), "NSUnderlyingError": {"error": inner}}
    return {"code": 10002, "domain": "com.apple.dt.CoreDeviceError", "userInfo": about}


def _text(words: str) -> dict[str, str]:
    return {"string": words}


def _launch(arguments: list[str]) -> int:
    refusal = HOME / "refusal.txt"
    if refusal.exists():
        sys.stderr.write(refusal.read_text())
        return 1
    print("Launched application with com.example.bench bundle identifier.", flush=True)
    job = arguments[arguments.index("--onekv-job") + 1]
    done = subprocess.run([HOME / "app", job], cwd=HOME / "files", check=False)
    if done.returncode < 0:
        print(f"App terminated due to signal {-done.returncode}.")
    return 0


def _options(arguments: list[str]) -> dict[str, str]:
    pairs = itertools.pairwise(arguments)
    return {name[2:]: value for name, value in pairs if name.startswith("--")}


def _answer(
    options: dict[str, str], result: object = None, error: str | dict[str, Any] | None = None
) -> int:
    info = {"jsonVersion": 2, "outcome": "success" if error is None else "failed"}
    content: dict[str, object] = {"info": info, "result": result}
    if error is not None:
        plain = {"code": 1, "userInfo": {"NSLocalizedDescription": _text(str(error))}}
        content = {"info": info, "error": error if isinstance(error, dict) else plain}
    Path(options["json-output"]).write_text(json.dumps(content))
    return 0 if error is None else 1


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
