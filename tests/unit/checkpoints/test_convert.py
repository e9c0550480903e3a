"""Conversion: the folder is the same model, in a form that transformers loads."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from onekv.errors import UsageError
from onekv.export.checkpoints import Checkpoint, open_checkpoint
from onekv.export.checkpoints.convert import convert
from onekv.export.model.spec import ModelSpec
from tests.builders import folders, paper
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids


def paper_checkpoint(folder: Path, spec: ModelSpec) -> Checkpoint:
    path = paper.save(folder / "model.pt", paper.checkpoint(tiny_decoder(spec)))
    return open_checkpoint(path)


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_a_paper_checkpoint_becomes_a_folder_that_transformers_loads(
    paper_variant: ModelSpec, shard_bytes: int, tmp_path: Path
) -> None:
    checkpoint = paper_checkpoint(tmp_path, paper_variant)
    folder = convert(checkpoint, tmp_path / "out", shard_bytes=shard_bytes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_bytes < 10**9)

    again = open_checkpoint(folder)
    assert again.spec == paper_variant
    for name, tensor in checkpoint.load().items():
        assert torch.equal(again.load()[name], tensor), name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokens = token_ids(paper_variant, 20)
    with torch.no_grad():
        expected = tiny_decoder(paper_variant)(tokens, torch.tensor([0]))
        assert (model(tokens).logits - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize(
    ("name", "family"),
    [("llama GQA-2", "llama"), ("llama GQA-2, window", "mistral"), ("llama Q-GQA-2", "onekv")],
)
def test_a_model_gets_the_most_common_type_that_describes_it(
    name: str, family: str, tmp_path: Path
) -> None:
    spec = replace(LLAMA[name], tied_head=False)
    checkpoint = open_checkpoint(folders.write_onekv(tmp_path / "in", tiny_decoder(spec)))
    folder = convert(checkpoint, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokens = token_ids(spec, 20)
    with torch.no_grad():
        expected = tiny_decoder(spec)(tokens, torch.tensor([0]))
        assert (model(tokens).logits - expected).norm() / expected.norm() < 1e-5


def test_types_ends_and_tokenizer_are_kept(tmp_path: Path) -> None:
    source = folders.write_onekv(tmp_path / "in", tiny_decoder(LLAMA["llama Q-MQA"]).half())
    (source / "tokenizer.json").write_text("{}")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 3], "bos_token_id": 1}')
    folder = convert(open_checkpoint(source), tmp_path / "out")
    again = open_checkpoint(folder)
    assert {tensor.dtype for tensor in again.load().values()} == {torch.float16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert (again.eos_token_ids, again.bos_token_id) == ((2, 3), 1)
    assert (folder / "tokenizer.json").read_text() == "{}"
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


def test_an_existing_folder_is_kept_unless_forced(tmp_path: Path) -> None:
    checkpoint = paper_checkpoint(tmp_path, PAPER["Q-K=V"])
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    with pytest.raises(UsageError, match="out exists"):
        convert(checkpoint, out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    convert(checkpoint, out, force=True)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}


_LIMITED = """
import sys
from pathlib import Path
from onekv.errors import OnekvError
from onekv.export.checkpoints import open_checkpoint
from onekv.export.checkpoints.convert import convert
try:
    convert(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))
except OnekvError as error:
    print(error)
"""


def _no_large_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    paper_checkpoint(tmp_path, PAPER["Q-K=V"])
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "model.pt"), str(tmp_path / "out")]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=_no_large_files
    )
    assert ran.stdout.startswith("model.safetensors cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = paper_checkpoint(tmp_path, PAPER["Q-K=V"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onekv.export.checkpoints.convert._write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
