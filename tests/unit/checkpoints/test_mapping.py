"""Loading maps files: no tensor is copied, and memory does not grow with the model."""

from __future__ import annotations

import subprocess
import sys
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from tests.builders import folders, paper
from tests.specs import LLAMA, PAPER, tiny_decoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def write_paper(folder: Path, decoder: Decoder) -> Path:
    return paper.save(folder / "model.pt", paper.checkpoint(decoder))


def write_llama(folder: Path, decoder: Decoder) -> Path:
    return folders.write_folder(
        folder / "model", folders.llama_config(decoder), folders.onekv_tensors(decoder), shards=3
    )


Write = Callable[[Path, Decoder], Path]
FORMATS = {
    "fused projections of a .pt": (write_paper, PAPER["QKV"]),
    "sharded safetensors": (write_llama, LLAMA["llama GQA-2"]),
}


def mapped_files() -> list[tuple[int, int, str]]:
    """Begin, end and file of every mapping of this process, by address."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        found.append((begin, end, line.split(maxsplit=5)[5] if line.count("/") else ""))
    return found


@pytest.mark.parametrize(("write", "spec"), FORMATS.values(), ids=FORMATS.keys())
def test_every_tensor_lies_in_a_mapped_file(write: Write, spec: ModelSpec, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_decoder(spec))
    checkpoint = open_checkpoint(path)
    state = checkpoint.load()
    maps = mapped_files()
    files = {str(file) for file in checkpoint.files}
    for name, tensor in state.items():
        begin, end, file = maps[bisect(maps, (tensor.data_ptr(), sys.maxsize, "")) - 1]
        assert begin <= tensor.data_ptr() < end and file in files, name


_MEASURE = """
import sys
from pathlib import Path
from onekv.export.checkpoints import open_checkpoint

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

import torch, onekv.export.checkpoints.paper, onekv.export.checkpoints.huggingface
import safetensors.torch
before = anonymous()
state = open_checkpoint(Path(sys.argv[1])).load()
assert state["layers.1.self_attn.k_proj.weight"].sum() != 0
print(anonymous() - before)
"""


@pytest.mark.parametrize(("write", "spec"), FORMATS.values(), ids=FORMATS.keys())
def test_memory_does_not_grow_with_the_model(write: Write, spec: ModelSpec, tmp_path: Path) -> None:
    large = replace(spec, vocab_size=2**15, hidden_size=512, head_dim=128)
    path = write(tmp_path, tiny_decoder(large))
    assert sum(file.stat().st_size for file in open_checkpoint(path).files) > 64 * 2**20
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) < 16
