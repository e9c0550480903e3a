"""A whole bundle: the command line, ExecuTorch's own text runner, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onekv.errors import BundleError
from onekv.export.bundle import open_bundle
from onekv.export.checkpoints import open_checkpoint
from onekv.export.options import Asked, Target
from onekv.export.pipeline import plan_export, run_export
from onekv.export.resolve import resolve_options
from onekv.export.source import source_session
from onekv.export.tokenizer import load_tokenizer
from onekv.runtime.executorch_session import ExecutorchSession
from onekv.runtime.generate import Generation, Sampling, generate

MODEL = Path(__file__).parents[3] / "samples" / "tiny"
CONTEXT, PROMPT, TOKENS = 256, "The king", 24
# In a process of its own: what a user of the stock runner writes, and nothing of onekv's besides.
RUNNER = """
import sys
from onekv.runtime import executorch_library
executorch_library.load()
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
folder, prompt, tokens = sys.argv[1:]
runner = TextLLMRunner(f"{folder}/model.pte", f"{folder}/tokenizer.json")
config = GenerationConfig(echo=False, max_new_tokens=int(tokens), temperature=0.0)
pieces = []
runner.generate(prompt, config, token_callback=pieces.append)
sys.stdout.write("<answer>" + "".join(pieces))
"""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a trained model: text that is no text breaks the stock runner's strings."""
    checkpoint = open_checkpoint(MODEL)
    options = resolve_options(checkpoint.spec, Target.EXECUTORCH, Asked(context=CONTEXT))
    plan = plan_export(checkpoint, options, None, need_tokenizer=True)
    return run_export(plan, tmp_path_factory.mktemp("bundles") / "tiny-executorch").path


def greedy_text(prompt: str) -> str:
    """What the source model says, in PyTorch."""
    tokenizer = load_tokenizer(MODEL)
    session = source_session(open_checkpoint(MODEL), CONTEXT)
    ids = tokenizer.encode(prompt).ids
    generation = Generation(prompt_tokens=len(ids))
    list(generate(session, generation, ids, Sampling(), max_tokens=TOKENS))
    return tokenizer.decode(generation.tokens)


def test_the_manifest_tells_the_cache_and_that_the_file_computes_the_model(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert manifest.parity is not None and manifest.parity.passed
    session = ExecutorchSession(bundle / manifest.entry, CONTEXT)
    assert manifest.memory.cache == session.cache_bytes


@pytest.mark.parametrize("prompt", [PROMPT, 70 * PROMPT], ids=["one call", "several calls"])
def test_the_stock_runner_gives_the_text_of_greedy_pytorch(bundle: Path, prompt: str) -> None:
    command = [sys.executable, "-c", RUNNER, str(bundle), prompt, str(TOKENS)]
    done = subprocess.run(command, capture_output=True, check=True)
    answer = done.stdout.decode(errors="replace").partition("<answer>")[2]
    assert answer == greedy_text(prompt)


def test_run_and_verify_work_as_on_any_bundle(bundle: Path) -> None:
    onekv = Path(sys.executable).with_name("onekv")
    command = [onekv, "run", bundle, PROMPT, "--max-tokens", str(TOKENS), "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["text"] == greedy_text(PROMPT)
    command = [onekv, "verify", bundle, "--source", MODEL, "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["passed"]


def test_a_cut_program_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = (bundle / "model.pte").read_bytes()
    (tmp_path / "cut.pte").write_bytes(whole[:2000])
    with pytest.raises(BundleError, match=r"cut\.pte is not a program that ExecuTorch"):
        ExecutorchSession(tmp_path / "cut.pte", CONTEXT)


def test_a_context_beyond_the_arena_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="a cache for 256 tokens, not for 257"):
        ExecutorchSession(bundle / "model.pte", CONTEXT + 1)


def test_a_program_of_somebody_else_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = (bundle / "model.pte").read_bytes()
    path = tmp_path / "model.pte"
    path.write_bytes(whole.replace(b"onekv_operator_libraries", b"nokey_operator_libraries"))
    with pytest.raises(BundleError, match="has no method onekv_operator_libraries"):
        ExecutorchSession(path, CONTEXT)


def test_a_missing_backend_names_the_version_that_made_the_file(
    bundle: Path, tmp_path: Path
) -> None:
    whole = (bundle / "model.pte").read_bytes()
    path = tmp_path / "model.pte"
    path.write_bytes(
        whole.replace(b"XnnpackBackend", b"UnknownBackend").replace(b"1.5.1", b"1.4.9")
    )
    with pytest.raises(BundleError, match=r"made with ExecuTorch 1\.4\.9"):
        ExecutorchSession(path, CONTEXT)


def test_two_copies_of_the_library_are_an_error_and_no_abort(tmp_path: Path) -> None:
    from onekv.runtime import executorch_library

    copy = shutil.copy(executorch_library.build(), tmp_path / "copy.so")
    program = f"""
import ctypes, torch
from executorch.extension.pybindings import _C
ctypes.CDLL({str(copy)!r})
from onekv.errors import OnekvError
from onekv.runtime import executorch_library
try:
    executorch_library.load()
except OnekvError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"another copy of onekv's operators for ExecuTorch" in done.stdout


def test_a_missing_library_is_named_and_nothing_else_is_said(bundle: Path) -> None:
    program = f"""
from pathlib import Path
from onekv.errors import BundleError
from onekv.runtime import executorch_session
executorch_session.load_operators = lambda library: None
try:
    executorch_session.ExecutorchSession(Path({str(bundle / "model.pte")!r}), {CONTEXT})
except BundleError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"0x:14; it has no kernel for onekv::attend.out" in done.stdout
    assert not done.stderr


def test_no_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onekv.errors import OnekvError
    from onekv.runtime import executorch_library

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OnekvError, match="no C\\+\\+ compiler") as caught:
        executorch_library.build(tmp_path)
    assert "--ops stock" in str(caught.value.fix)


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onekv.errors import OnekvError
    from onekv.runtime import executorch_library

    monkeypatch.setenv("CXX", "false")
    with pytest.raises(OnekvError, match="false cannot build"):
        executorch_library.build(tmp_path)
    assert not list(tmp_path.iterdir())
