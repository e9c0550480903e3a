"""Headers of safetensors files: nothing passes that the library itself would refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from onekv.errors import CheckpointError
from onekv.export.checkpoints.stored import read_header

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.ones(5, dtype=torch.bfloat16),
    "empty": torch.ones(0, 3, dtype=torch.float16),
}


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    save_file(TENSORS, tmp_path / "whole.safetensors", {"format": "pt"})
    return (tmp_path / "whole.safetensors").read_bytes()


def _entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _write(path: Path, header: object, data: int) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


def test_a_header_gives_types_shapes_and_places(whole: bytes, tmp_path: Path) -> None:
    stored = read_header(tmp_path / "whole.safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in TENSORS.items()}
    assert {key: tensor.shape for key, tensor in stored.items()} == shapes
    assert {stored[key].dtype for key in stored} == {"F32", "BF16", "F16"}
    a = stored["a"]
    assert whole[a.start : a.start + a.size] == TENSORS["a"].numpy().tobytes()


def test_same_bytes_compares_type_shape_and_values(tmp_path: Path) -> None:
    base = torch.randn(300, 7)
    tensors = {
        "base": base,
        "copy": base.clone(),
        "last differs": torch.cat([base.flatten()[:-1], torch.ones(1)]).reshape(300, 7),
        "other shape": base.reshape(7, 300).clone(),
        "other type": base.clone().view(torch.float16),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    stored = read_header(tmp_path / "x.safetensors")
    same = [key for key in stored if stored["base"].same_bytes(stored[key])]
    assert sorted(same) == ["base", "copy"]


def test_every_truncation_is_refused_by_name(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"short\.safetensors is truncated"):
            read_header(path)


BAD = {
    "longer than the tensors": ({"a": _entry("F32", [2], 0, 8)}, 12, "has .* bytes, its tensors"),
    "size differs": ({"a": _entry("F32", [3], 0, 8)}, 8, "a needs 12 bytes and has 8"),
    "overlap": (
        {"a": _entry("F32", [2], 0, 8), "b": _entry("F32", [2], 4, 12)},
        12,
        "b begins at byte",
    ),
    "gap": ({"a": _entry("F32", [2], 4, 12)}, 12, "a begins at byte"),
    "negative": ({"a": _entry("F32", [-2], 0, 8)}, 8, "no whole number"),
    "fraction": ({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, 8, "no whole"),
    "huge": ({"a": _entry("F32", [10**12], 0, 4 * 10**12)}, 8, "its tensors need 4000000000"),
    "beyond any machine": ({"a": _entry("F32", [10**30], 0, 8)}, 8, "no whole number"),
    "quantised": ({"a": _entry("F8_E4M3", [8], 0, 8)}, 8, "a has type 'F8_E4M3'"),
    "entry is no table": ({"a": 3}, 0, "entry of a is not dtype"),
    "shape is missing": ({"a": {"dtype": "F32", "data_offsets": [0, 0]}}, 0, "entry of a is not"),
    "header is a list": ([], 0, "no JSON object"),
}


@pytest.mark.parametrize(("header", "data", "message"), BAD.values(), ids=BAD.keys())
def test_a_contradiction_is_refused(
    header: object, data: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_header(_write(tmp_path / "bad.safetensors", header, data))


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="cannot hold a header of 9223372036854775808"):
        read_header(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_changed_bytes_never_pass_what_the_library_refuses(
    changes: list[tuple[int, int]], whole: bytes, tmp_path: Path
) -> None:
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "fuzzed.safetensors"
    path.write_bytes(data)
    try:
        stored = read_header(path)
    except CheckpointError:
        return
    with safe_open(path, framework="pt") as file:
        for key, tensor in stored.items():
            assert tuple(file.get_tensor(key).shape) == tensor.shape
