"""What each runtime's file stores for a weight, read back from the file: one set of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from numpy.typing import NDArray

from onekv.export.options import Asked, ExportOptions, Profile, Target
from onekv.export.plan import plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.targets import LowerRequest, lower
from onekv.quantize.numbers import ROUNDED, Number
from onekv.quantize.weights import QuantisedWeight, quantise_weights
from tests.specs import LLAMA, tiny_decoder, token_ids

SPEC = replace(LLAMA["llama Q-GQA-2, separate head"], layers=1)
CONTEXT = 32
PROFILES = {Target.COREML: Profile.GPU}

Floats = NDArray[np.float32]


def chosen(target: Target, weights: Number) -> ExportOptions:
    asked = Asked(context=CONTEXT, weights=weights, profile=PROFILES.get(target))
    return resolve_options(SPEC, target, asked)


def rounded(options: ExportOptions) -> dict[str, QuantisedWeight]:
    state = tiny_decoder(SPEC).state_dict()
    return quantise_weights(state, plan_weights_of(SPEC, options), lambda *_: None)


def write(folder: Path, options: ExportOptions) -> Path:
    load = tiny_decoder(SPEC).state_dict
    text = tuple(token_ids(SPEC, 64)[0].tolist())
    request = LowerRequest(SPEC, options, load, (1,), None, rounded(options), calibration=text)
    return folder / lower(request, folder, lambda *_: None)


def in_onnx(path: Path, weight: QuantisedWeight, name: str) -> Floats:
    """The matrix of an ONNX file, by the layout that MatMulNBits documents."""
    tensors = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}

    def read(key: str) -> NDArray[np.generic]:
        return onnx.numpy_helper.to_array(tensors[f"decoder.{name}.{key}"], str(path.parent))

    key = "blocks" if f"decoder.{name}.blocks" in tensors else "rows"
    integers = read(key).reshape(len(weight.values), -1).astype(int)
    if weight.number is Number.INT4:
        integers = np.stack([integers & 15, integers >> 4], -1).reshape(len(integers), -1)
    levels = integers - (8 if weight.number is Number.INT4 else 128)
    return dequantised(levels, read("scales"))


def in_npu_graph(path: Path, name: str) -> Floats:
    """The matrix of a graph for an NPU, by what DequantizeLinear does with a scale per row."""
    tensors = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    levels, scales = (
        onnx.numpy_helper.to_array(tensors[f"decoder.{name}.{key}"], str(path.parent))
        for key in ("integers", "scales")
    )
    return levels.astype(np.float32) * scales[:, None]


def dequantised(levels: NDArray[np.generic], scales: NDArray[np.generic]) -> Floats:
    wide = scales.astype(np.float32).repeat(levels.shape[1] // scales.shape[1], axis=1)
    return levels.astype(np.float32) * wide


def core_ml_matrices(path: Path) -> list[Floats]:
    """All integer matrices of a package's first function, unfolded."""
    from onekv.runtime.mil.blobs import StoredArray
    from onekv.runtime.mil.package import Constant, read_package

    def read(argument: object) -> NDArray[np.generic]:
        assert isinstance(argument, Constant)
        held = argument.value
        return held.load() if isinstance(held, StoredArray) else np.asarray(held)

    function = next(iter(read_package(path).functions.values()))
    operations = [o for o in function.operations if o.kind == "constexpr_blockwise_shift_scale"]
    found = []
    for arguments in (operation.arguments for operation in operations):
        levels, scales = read(arguments["data"]), read(arguments["scale"])
        rows, groups = scales.shape[:2]
        found.append(dequantised(levels.reshape(rows, -1), scales.reshape(rows, groups)))
    return found


def xnnpack_bytes(weight: QuantisedWeight) -> tuple[bytes, bytes]:
    """Integers and scales as a program stores a linear layer for XNNPACK."""
    if weight.number is Number.INT8:
        return weight.values.numpy().tobytes(), weight.scales.numpy().tobytes()
    levels = (weight.values.numpy() + 8).view(np.uint8)
    packed = levels[:, 0::2] | (levels[:, 1::2] << 4)
    return packed.tobytes(), weight.scales.bfloat16().view(torch.int16).numpy().tobytes()


@pytest.mark.parametrize(
    ("weights", "targets"),
    # ONNX Runtime multiplies int8 in blocks anyway, and XNNPACK knows scales per row alone.
    [(Number.INT4, tuple(Target)), (Number.INT8, (Target.EXECUTORCH, Target.COREML))],
)
def test_targets_are_given_the_same_matrices(weights: Number, targets: tuple[Target, ...]) -> None:
    given = [rounded(chosen(target, weights)) for target in targets]
    for name, weight in given[0].items():
        for other in given[1:]:
            np.testing.assert_array_equal(weight.dequantise(), other[name].dequantise(), name)


@pytest.mark.parametrize("weights", ROUNDED)
def test_an_onnx_file_holds_them(weights: Number, tmp_path: Path) -> None:
    options = chosen(Target.ONNX, weights)
    path = write(tmp_path, options)
    for name, weight in rounded(options).items():
        np.testing.assert_array_equal(in_onnx(path, weight, name), weight.dequantise(), name)


def test_an_onnx_file_for_an_npu_holds_what_executorch_is_given(tmp_path: Path) -> None:
    asked = Asked(context=CONTEXT, profile=Profile.NPU)
    options = resolve_options(SPEC, Target.ONNX, asked)
    path = write(tmp_path, options)
    for name, weight in rounded(chosen(Target.EXECUTORCH, Number.INT8)).items():
        np.testing.assert_array_equal(in_npu_graph(path, name), weight.dequantise(), name)


@pytest.mark.parametrize("weights", ROUNDED)
def test_a_core_ml_package_holds_them(weights: Number, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    options = chosen(Target.COREML, weights)
    matrices = core_ml_matrices(write(tmp_path, options))
    for name, weight in rounded(options).items():
        want = weight.dequantise().numpy()
        assert any(np.array_equal(want, matrix) for matrix in matrices), name


@pytest.mark.parametrize(
    "weights", [Number.INT4, pytest.param(Number.INT8, marks=pytest.mark.slow)]
)
def test_an_executorch_program_holds_them(weights: Number, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    options = chosen(Target.EXECUTORCH, weights)
    content = write(tmp_path, options).read_bytes()
    linear: Mapping[str, QuantisedWeight] = {
        name: weight for name, weight in rounded(options).items() if "embed" not in name
    }
    for name, weight in linear.items():
        integers, scales = xnnpack_bytes(weight)
        assert integers in content and scales in content, name
