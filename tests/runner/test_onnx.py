"""The runner with ONNX Runtime: the session's tokens, memory by phase, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from onekv.export.bundle import Bundle, open_bundle
from onekv.export.golden import load_golden
from onekv.runtime.generate import prefill
from onekv.runtime.sessions import open_session
from tests.runner.running import check_failure, run

PHASES = ["baseline", "loaded", "prefill", "decode", "after"]


@pytest.fixture(scope="module")
def bundle(sample_bundle: Path) -> Bundle:
    return open_bundle(sample_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> list[object]:
    """The arguments that say which model."""
    return [bundle.entry, "--context", bundle.manifest.options.context, "--prompt", "-"]


def _session_tokens(bundle: Bundle, prompt: list[int], count: int) -> list[int]:
    session = open_session("onnx", bundle.entry, bundle.manifest.options.context)
    logits, tokens = prefill(session, prompt), []
    while len(tokens) < count:
        tokens.append(int(logits.argmax()))
        logits = session.step(tokens[-1:])[-1]
    return tokens


PROMPT = [5, 17, 3, 9, 40, 22, 8, 11, 2, 30]


@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_tokens_are_those_of_the_python_session_however_the_prompt_is_cut(
    onnx_runner: list[str], bundle: Bundle, model: list[object], chunk: int
) -> None:
    options = ["--decode", 12, "--ignore-eos", "--chunk", chunk]
    result = run(onnx_runner, *model, *options, prompt=PROMPT)
    assert result.code == 0, result.errors
    assert result.tokens == _session_tokens(bundle, PROMPT, 12)


def test_every_phase_is_told_in_order_with_its_memory(
    onnx_runner: list[str], bundle: Bundle, model: list[object]
) -> None:
    result = run(onnx_runner, *model, "--decode", 12, "--sample-ms", 1, prompt=PROMPT)
    assert list(result.phases) == PHASES
    for phase in result.phases.values():
        assert phase["end"]["pss_anon"] > 0 and phase["end"]["pss_file"] > 0
        assert phase["high_water"] >= phase["end"]["rss"]
    assert result.phases["loaded"]["samples"] > 0
    assert result.event("model")["cache_bytes"] == bundle.manifest.memory.cache
    assert result.events[-1] == {"event": "end"}


def test_without_sampling_the_kernel_still_tells_ends_and_the_highest_point(
    onnx_runner: list[str], model: list[object]
) -> None:
    result = run(onnx_runner, *model, "--sample-ms", 0, prompt=PROMPT)
    assert all(phase["samples"] == 0 for phase in result.phases.values())
    assert all(phase["end"]["pss_anon"] for phase in result.phases.values())
    for name in ("prefill", "decode"):
        phase = result.phases[name]
        assert phase["peak"]["pss_anon"] >= phase["end"]["pss_anon"]
    # What is mapped and let go of while a model loads could not be told from its own memory.
    assert result.phases["loaded"]["peak"] is None


def test_the_cache_takes_memory_only_as_it_fills(
    onnx_runner: list[str], bundle: Bundle, model: list[object]
) -> None:
    result = run(onnx_runner, *model, "--context", 1_000_000, "--decode", 2, prompt=PROMPT)
    cache = result.event("model")["cache_bytes"]
    assert cache == bundle.manifest.memory.cache_per_token * 1_000_000
    assert result.phases["decode"]["end"]["pss_anon"] < cache / 4


def test_tokens_of_the_depth_are_in_the_cache_and_not_in_the_times(
    onnx_runner: list[str], model: list[object]
) -> None:
    whole = run(onnx_runner, *model, "--decode", 5, "--ignore-eos", prompt=PROMPT)
    deep = run(onnx_runner, *model, "--decode", 5, "--ignore-eos", "--depth", 7, prompt=PROMPT)
    assert deep.tokens == whole.tokens
    assert deep.event("speed")["prompt_tokens"] == 3
    assert len(deep.event("speed")["decode_seconds"]) == 4


def test_an_end_token_ends_the_decode(onnx_runner: list[str], model: list[object]) -> None:
    free = run(onnx_runner, *model, "--decode", 12, "--ignore-eos", prompt=PROMPT).tokens
    stopped = run(onnx_runner, *model, "--decode", 12, "--eos", free[0], prompt=PROMPT)
    assert stopped.tokens == free[:1]


def test_the_parity_records_tokens_are_chosen_along_it(
    onnx_runner: list[str], bundle: Bundle, model: list[object], tmp_path: Path
) -> None:
    golden = load_golden(bundle.path / "parity.safetensors")
    check = tmp_path / "check.json"
    check.write_text(json.dumps(golden.tokens.tolist()))
    arguments = ["--check", check, "--check-prompt", golden.prompt_length]
    result = run(onnx_runner, *model, *arguments, prompt=PROMPT)
    assert result.event("check")["chosen"] == golden.tokens[golden.prompt_length :].tolist()


def test_more_tokens_than_the_context_holds_are_refused(
    onnx_runner: list[str], model: list[object]
) -> None:
    result = run(onnx_runner, *model, "--context", 12, "--decode", 4, prompt=PROMPT)
    check_failure(result, "context-full", "13 tokens do not fit into a context of 12")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--colour"], "unknown option --colour"),
        (["--decode"], "--decode needs a value"),
        (["--decode", "some"], "--decode some: not a number"),
        (["--threads", "-1"], "--threads -1: not a number"),
        (["--depth", "10"], "at least one token beyond the depth of 10"),
        (["--check-prompt", "3"], "go together"),
        (["another.onnx"], "more than one model"),
    ],
)
def test_a_wrong_call_is_told_apart(
    onnx_runner: list[str], model: list[object], arguments: list[str], says: str
) -> None:
    result = run(onnx_runner, *model, *arguments, prompt=PROMPT)
    check_failure(result, "usage", says, code=2)


def test_ids_that_are_none_are_refused(onnx_runner: list[str], bundle: Bundle) -> None:
    entry = [bundle.entry, "--context", 64, "--prompt"]
    beyond = run(onnx_runner, *entry, "-", prompt=[bundle.manifest.model.vocab_size])
    check_failure(beyond, "usage", "the vocabulary has", code=2)
    check_failure(run(onnx_runner, *entry, "-", prompt=[-1]), "usage", "no token id", code=2)
    check_failure(run(onnx_runner, *entry, "/nowhere"), "usage", "No such file", code=2)


def test_a_library_that_is_no_onnx_runtime_is_named(
    onnx_runner: list[str], model: list[object]
) -> None:
    program = onnx_runner[:1]
    result = run(program, *model, "--runtime", "libm.so.6")
    check_failure(result, "missing-library", "libm.so.6 is not ONNX Runtime")
    check_failure(run(program, *model, "--runtime", "/nowhere.so"), "missing-library", "/nowhere")
    result = run(onnx_runner, *model, "--operators", "/nowhere.so")
    check_failure(result, "missing-library", "/nowhere.so")


def test_another_version_than_expected_is_refused(
    onnx_runner: list[str], model: list[object]
) -> None:
    result = run(onnx_runner, *model, "--expect-version", "1.2.3")
    check_failure(result, "version-mismatch", "1.2.3 is asked for")


def test_corrupt_files_are_refused(onnx_runner: list[str], bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.path, copy)
    entry, arguments = copy / bundle.entry.name, ["--context", 64, "--prompt", "-"]
    data = copy / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    check_failure(run(onnx_runner, entry, *arguments), "corrupt-file", "out of bounds")
    entry.write_bytes(entry.read_bytes()[:1000])
    check_failure(run(onnx_runner, entry, *arguments), "corrupt-file", "ONNX Runtime")
    check_failure(run(onnx_runner, copy, *arguments), "usage", "is not a file", code=2)
