"""Pages of a mapped file can be given back, and the tensors stay what they were."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from onekv.export.resident import drop_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_file_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssFile:")[1].split()[0])


def test_dropped_pages_leave_memory_and_come_back_when_read(tmp_path: Path) -> None:
    size = 64 * 2**20
    save_file({"w": torch.arange(size // 4, dtype=torch.int32)}, tmp_path / "w.safetensors")
    tensor = load_file(tmp_path / "w.safetensors")["w"]
    total = tensor.sum()
    before = resident_file_bytes()
    drop_pages([tmp_path / "w.safetensors"])
    assert before - resident_file_bytes() > 0.9 * size
    assert tensor.sum() == total


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2**20)}, tmp_path / "w.safetensors")
    tensor = load_file(tmp_path / "w.safetensors")["w"]
    tensor.sum()
    before = resident_file_bytes()
    drop_pages([tmp_path / "other"])
    assert resident_file_bytes() >= before
