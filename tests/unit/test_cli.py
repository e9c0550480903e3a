"""The commands as a person types them: results on stdout, errors that name the fix, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.folders import write_onekv
from tests.specs import LLAMA, tiny_decoder

ONEKV = str(Path(sys.executable).with_name("onekv"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def onekv(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [ONEKV, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == code, done.stderr
    return done


def test_help_names_every_command() -> None:
    text = onekv("--help").stdout
    for command in ("export", "plan", "run", "verify", "inspect", "convert"):
        assert command in text


def test_a_dry_run_shows_the_plan_and_writes_nothing(sample_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shown = onekv("export", sample_model, "-o", out, "--context", 64, "--dry-run", "--json").stdout
    found = json.loads(shown)
    assert found["variant"] == "Q-GQA-2"
    assert found["options"] == {
        "target": "onnx",
        "context": 64,
        "weights": "fp32",
        "cache": "fp32",
        "profile": "cpu",
        "ops": "onekv",
        "group": None,
        "overrides": [],
        "calibration": None,
        "platforms": [],
        "deployment_target": None,
    }
    assert found["notes"] == []
    assert found["memory"]["cache"] == 2 * 2 * 16 * 4 * 64
    assert not list(tmp_path.iterdir())


def test_export_then_run_verify_and_inspect(sample_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    exported = onekv("export", sample_model, "-o", out, "--weights", "fp16")
    assert "verdict: computes the source model" in exported.stdout
    assert "peak" in exported.stderr
    ran = onekv("run", out, "To be", "--max-tokens", 5)
    assert "tokens/s" in ran.stderr and "bytes for 128 tokens" in ran.stderr
    as_json = json.loads(onekv("run", out, "To be", "--max-tokens", 5, "--json").stdout)
    assert as_json["text"] + "\n" == ran.stdout
    assert as_json["cache"] == 2 * 2 * 16 * 2 * 128
    parity = json.loads(onekv("verify", out, "--source", sample_model, "--json").stdout)
    assert parity["passed"] and parity["against"] == "source model"
    assert "1 tensor per layer" in onekv("inspect", out).stdout
    assert json.loads(onekv("inspect", out, "--json").stdout)["parity"] == parity


def test_a_sampled_text_repeats_with_its_seed(sample_bundle: Path) -> None:
    options = ("--temperature", 1.5, "--top-p", 0.9, "--max-tokens", 12, "--seed")
    first, again, other = (
        onekv("run", sample_bundle, "O", *options, seed).stdout for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_failed_verification_exits_with_one(sample_bundle: Path, tmp_path: Path) -> None:
    from tests.unit.test_verify import replace_record

    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", sample_bundle, copy], check=True)
    from onekv.export.golden import RECORD, load_golden

    replace_record(copy, logits=load_golden(copy / RECORD).logits * 1.001)
    assert "FAILS" in onekv("verify", copy, code=1).stdout


def test_inspect_tells_how_a_models_sharing_was_proven(sample_model: Path) -> None:
    assert "Q-GQA-2: config.json declares q-k=v" in onekv("inspect", sample_model).stdout


def test_convert_writes_a_folder_that_exports(tmp_path: Path) -> None:
    folder = write_onekv(tmp_path / "model", tiny_decoder(LLAMA["llama Q-MQA"]))
    onekv("convert", folder, "-o", tmp_path / "again")
    found = json.loads(onekv("inspect", tmp_path / "again", "--json").stdout)
    assert found["model"]["kv_heads"] == 1 and found["model"]["sharing"] == "q-k=v"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("export", "{missing}"), 1, "does not exist"),
        (("export", "{model}", "--context", "4096"), 2, "the model has positions for 128"),
        (("export", "{model}", "--to", "toaster"), 2, "toaster"),
        (("export", "{model}", "-o", "{model}"), 2, "exists"),
        (("export", "{bare}", "-o", "{missing}"), 1, "comes without a tokenizer"),
        (("export", "{qkv}", "--one-tensor", "-o", "{missing}"), 1, "v_proj.weight differs"),
        (("run", "{model}", "x"), 1, "is not a bundle"),
        (("run", "{bundle}", ""), 2, "no tokens"),
        (("run", "{bundle}", "x" * 200), 1, "do not fit into this bundle's context"),
        (("run", "{bundle}", "x", "--top-p", "2"), 2, "top-p 2.0"),
        (("verify", "{bundle}", "--text", "{missing}"), 2, "cannot be read"),
        (("inspect", "{missing}"), 1, "does not exist"),
    ],
)
def test_bad_input_is_one_clear_error(
    sample_model: Path,
    sample_bundle: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    places = {
        "model": sample_model,
        "bundle": sample_bundle,
        "missing": tmp_path / "missing",
        "bare": write_onekv(tmp_path / "bare", tiny_decoder(LLAMA["llama Q-GQA-2"])),
        "qkv": write_onekv(tmp_path / "qkv", tiny_decoder(LLAMA["llama GQA-2"])),
    }
    done = onekv(*(argument.format(**places) for argument in arguments), code=code)
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "qkv"]


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    decoder = tiny_decoder(LLAMA["llama Q-GQA-2"])
    decoder.get_parameter("layers.1.mlp.up_proj.weight").data[2, 3] = float("nan")
    folder, out = write_onekv(tmp_path / "model", decoder), tmp_path / "out"
    done = onekv("export", folder, "--no-tokenizer", "-o", out, code=1)
    assert "layers.1.mlp.up_proj.weight has values that are not finite" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(
    sample_model: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "bundle"
    command = [ONEKV, "export", str(sample_model), "-o", str(out)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # A shell's background jobs ignore interrupts, and their children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert b"Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(sample_model: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for a disk: writing past it fails as a full one does."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        f"sys.argv = ['onekv', 'export', {str(sample_model)!r}, '-o', {str(tmp_path / 'b')!r}];"
        "from onekv.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
