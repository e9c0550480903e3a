"""`optimum-cli export onekv` takes the options of `onekv export` and writes the same bundle."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from tests.unit.test_cli import ENVIRONMENT, onekv

OPTIMUM = str(Path(sys.executable).with_name("optimum-cli"))


def optimum(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [OPTIMUM, "export", "onekv", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == code, done.stderr
    return done


def test_onekv_registers_itself_with_optimum_on_installation() -> None:
    found = importlib.util.find_spec("optimum.commands.register.register_onekv")
    assert found is not None


def test_the_same_options_give_the_same_export(sample_model: Path, tmp_path: Path) -> None:
    options = ("--weights", "fp16", "--context", 32, "--output", tmp_path / "bundle")
    dry = (sample_model, *options, "--dry-run", "--json")
    assert json.loads(optimum(*dry).stdout) == json.loads(onekv("export", *dry).stdout)
    optimum(sample_model, *options)
    manifest = json.loads(onekv("inspect", tmp_path / "bundle", "--json").stdout)
    assert manifest["options"]["context"] == 32 and manifest["parity"]["passed"]


def test_an_error_ends_with_onekvs_message_and_code(sample_model: Path, tmp_path: Path) -> None:
    failed = optimum(sample_model, "--context", 4096, "-o", tmp_path / "bundle", code=2)
    assert "the model has positions for 128" in failed.stderr
    assert not list(tmp_path.iterdir())
