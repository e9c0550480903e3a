"""Graphs for an NPU: what they compute, what they are made of, and what the parity gate refuses."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from numpy.typing import NDArray

from onekv.errors import BundleError, UsageError
from onekv.export.checkpoints import open_checkpoint
from onekv.export.golden import golden_run
from onekv.export.manifest import Parity
from onekv.export.model.decoder import build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, ExportOptions, Profile, Target
from onekv.export.pipeline import plan_export
from onekv.export.plan import plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.targets import LowerRequest, check_target
from onekv.export.targets.onnx.encodings import encoding
from onekv.export.targets.onnx.lower import lower
from onekv.export.verify import check_bundle, difference
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight, quantise_weights
from onekv.runtime.onnx_static import PREFILL
from onekv.runtime.platforms import Platform
from onekv.runtime.sessions import ContextFullError, Session, open_session
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids

CONTEXT = 48
SHARED = replace(LLAMA["llama Q-GQA-2"], layers=1)
SPECS = [
    SHARED,
    replace(LLAMA["llama Q-GQA-2, wide heads, biases"], layers=1, tied_head=False),
    replace(LLAMA["llama GQA-2, window"], layers=1),
    replace(PAPER["Q-GQA-2"], layers=1),
]
CALIBRATION = tuple(token_ids(SHARED, 960, seed=1)[0].tolist())

Made = Callable[..., Path]


def chosen(spec: ModelSpec, number: Number = Number.INT8) -> ExportOptions:
    asked = Asked(context=CONTEXT, weights=number, profile=Profile.NPU)
    return resolve_options(spec, Target.ONNX, asked)


def rounded(spec: ModelSpec, number: Number = Number.INT8) -> dict[str, QuantisedWeight]:
    plan = plan_weights_of(spec, chosen(spec, number))
    return quantise_weights(tiny_decoder(spec).state_dict(), plan, lambda *_: None)


def source(spec: ModelSpec, number: Number = Number.INT8) -> DecoderSession:
    """The model whose weights are rounded as the file's."""
    weights = {name: weight.dequantise() for name, weight in rounded(spec, number).items()}
    state = {**tiny_decoder(spec).state_dict(), **weights}
    return DecoderSession(build_decoder(spec, state, CONTEXT), CONTEXT)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives the entry of a model's pair of graphs, exported once."""

    @functools.cache
    def get(spec: ModelSpec, number: Number = Number.INT8) -> Path:
        folder = tmp_path_factory.mktemp("npu")
        load, integers = tiny_decoder(spec).state_dict, rounded(spec, number)
        request = LowerRequest(
            spec, chosen(spec, number), load, (1,), None, integers, calibration=CALIBRATION
        )
        return folder / lower(request, folder)

    return get


def opened(path: Path, exact: bool = False) -> Session:
    return open_session("onnx", path, CONTEXT, exact=exact)


def error(path: Path, spec: ModelSpec, exact: bool, number: Number = Number.INT8) -> float:
    """Relative L2 of tokens fed in pieces: full calls, padded ones, single ones, a full context."""
    tokens, at, rows = token_ids(spec, CONTEXT)[0].tolist(), 0, []
    session = opened(path, exact)
    for size in (13, 1, 1, 20, 1, 12):
        rows.append(session.step(tokens[at : at + size]))
        at += size
    return difference(np.concatenate(rows), source(spec, number).step(tokens)).relative_l2


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_with_float_activations_the_graphs_compute_the_rounded_model(
    made: Made, spec: ModelSpec
) -> None:
    assert error(made(spec), spec, exact=True) <= 1e-5


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_as_they_ship_activations_have_16_bits(made: Made, spec: ModelSpec) -> None:
    assert 1e-5 < error(made(spec), spec, exact=False) <= 2e-2


def test_int4_weights_have_a_scale_per_row(made: Made) -> None:
    path = made(SHARED, Number.INT4)
    assert error(path, SHARED, exact=True, number=Number.INT4) <= 1e-5
    kinds = {tensor.data_type for tensor in graph(path).initializer}
    assert onnx.TensorProto.INT4 in kinds and onnx.TensorProto.INT8 in kinds


def test_more_than_the_context_is_refused_and_the_session_goes_on(made: Made) -> None:
    session = opened(made(SHARED))
    session.step(CALIBRATION[:40])
    with pytest.raises(ContextFullError, match="49 tokens do not fit"):
        session.step(CALIBRATION[:9])
    assert np.isfinite(session.step(CALIBRATION[:8])).all() and session.position == CONTEXT


def graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def shapes(values: object) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(extent.dim_value for extent in value.type.tensor_type.shape.dim)
        for value in values  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("file", ["decode", "prefill"])
def test_shapes_are_static_and_a_layer_has_one_tensor_in_and_its_new_rows_out(
    made: Made, file: str
) -> None:
    found, new = graph(made(SHARED).with_name(f"{file}.onnx")), 1 if file == "decode" else 12
    assert shapes(found.input) == {
        "input_ids": (1, new),
        "past_length": (1,),
        "past.0.rows": (1, 2, CONTEXT, 16),
    }
    assert shapes(found.output) == {"logits": (1, new, 97), "new.0.rows": (1, 2, new, 16)}
    rows = [value for value in (*found.input, *found.output) if value.name.endswith("rows")]
    assert {value.type.tensor_type.elem_type for value in rows} == {onnx.TensorProto.INT16}
    assert {node.domain for node in found.node} == {""}


def producers(found: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in found.node for name in node.output}


def test_the_second_operand_of_a_product_is_signed(made: Made) -> None:
    # Unsigned 16 bits are narrowed to 8 there by Qualcomm's compiler: 0.9% instead of 0.02%.
    found = graph(made(SHARED))
    made_by, kinds = producers(found), {t.name: t.data_type for t in found.initializer}
    products = [node for node in found.node if node.op_type == "MatMul"]
    assert len(products) == 9
    for node in products:
        second = made_by[node.input[1]]
        while second.op_type == "Transpose":
            second = made_by[second.input[0]]
        assert kinds[second.input[2]] in (onnx.TensorProto.INT16, onnx.TensorProto.INT8)


def test_what_only_moves_numbers_keeps_their_encoding(made: Made) -> None:
    found = graph(made(SHARED))
    made_by = producers(found)
    after = {node.input[0]: node for node in found.node if node.op_type == "QuantizeLinear"}
    moving = [n for n in found.node if n.op_type in ("Reshape", "Concat", "Slice", "Squeeze")]
    rounding = [node for node in moving if node.output[0] in after]
    assert len(rounding) > 10
    for node in rounding:
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        before = {tuple(made_by[name].input[1:]) for name in sources}
        assert before == {tuple(after[node.output[0]].input[1:])}, node.name


def test_both_graphs_read_one_file_of_weights(made: Made) -> None:
    path = made(SHARED)
    places = [
        {t.name: [entry.value for entry in t.external_data] for t in graph(file).initializer}
        for file in (path, path.with_name(PREFILL))
    ]
    stored = {name: place for name, place in places[0].items() if place}
    assert stored and stored.items() <= places[1].items()
    assert [file.name for file in path.parent.glob("*.data")] == ["decode.onnx.data"]
    assert (
        stored["decoder.embed_tokens.weight.rows"]
        == (stored["decoder.embed_tokens.weight.integers"])
    )


def judged(path: Path, spec: ModelSpec) -> Parity:
    golden = golden_run(source(spec), CALIBRATION[:20])
    return check_bundle(path, golden, chosen(spec), "the rounded model")


def changed(path: Path, folder: Path, name: str, change: Callable[[NDArray], NDArray]) -> Path:
    """A copy of a pair of graphs with one small constant changed in both."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    for file in (folder / path.name, folder / PREFILL):
        change_one(file, name, change)
    return folder / path.name


def change_one(file: Path, name: str, change: Callable[[NDArray], NDArray]) -> None:
    model = onnx.load(file, load_external_data=False)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))
    onnx.save(model, file)


def test_the_gate_lets_an_export_pass_and_keeps_what_rounding_costs(made: Made) -> None:
    parity = judged(made(SHARED), SHARED)
    assert parity.passed and parity.decode.relative_l2 < 1e-5
    assert parity.rounded is not None
    assert 1e-5 < parity.rounded.decode.relative_l2 <= parity.rounded.tolerance == 2e-1


def test_a_wrong_scale_of_one_row_of_a_weight_fails_the_gate(made: Made, tmp_path: Path) -> None:
    def double_first(scales: NDArray) -> NDArray:
        return np.concatenate([2 * scales[:1], scales[1:]])

    name = "decoder.layers.0.mlp.up_proj.weight.scales"
    parity = judged(changed(made(SHARED), tmp_path, name, double_first), SHARED)
    assert not parity.passed and parity.decode.relative_l2 > parity.tolerance


def test_swapped_weights_fail_the_gate(made: Made, tmp_path: Path) -> None:
    path = shutil.copytree(made(SHARED).parent, tmp_path / "swapped") / "decode.onnx"
    names = [f"decoder.layers.0.mlp.{part}_proj.weight.integers" for part in ("up", "gate")]
    for file in (path, path.with_name(PREFILL)):
        model = onnx.load(file, load_external_data=False)
        up, gate = (next(t for t in model.graph.initializer if t.name == n) for n in names)
        up.name, gate.name = gate.name, up.name
        onnx.save(model, file)
    assert not judged(path, SHARED).passed


def activation_scales(path: Path) -> Iterator[str]:
    """The scales of what norms give."""
    found = graph(path)
    norms = [node.output[0] for node in found.node if node.op_type == "RMSNormalization"]
    quantisers = [node for node in found.node if node.op_type == "QuantizeLinear"]
    yield from (node.input[1] for node in quantisers if node.input[0] in norms)


def test_a_range_that_is_too_narrow_fails_the_gate(made: Made, tmp_path: Path) -> None:
    name = next(activation_scales(made(SHARED)))
    parity = judged(changed(made(SHARED), tmp_path, name, lambda scale: scale / 4), SHARED)
    # The graph is right without rounding: what ships is wrong all the same.
    assert parity.decode.relative_l2 < 1e-5 and not parity.passed
    assert all(reason.startswith("with rounded activations") for reason in parity.reasons)


def test_graphs_that_disagree_on_their_cache_are_refused(made: Made, tmp_path: Path) -> None:
    path = made(SHARED)
    scale = next(n.input[1] for n in graph(path).node if n.input[0] == "past.0.rows")
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    change_one(tmp_path / PREFILL, scale, lambda old: old * np.float32(1.01))
    with pytest.raises(BundleError, match=r"rows has another encoding than its cache"):
        opened(tmp_path / path.name)


def test_a_context_that_the_graphs_do_not_have_is_refused(made: Made) -> None:
    with pytest.raises(BundleError, match="another length than 64"):
        open_session("onnx", made(SHARED), 64)


@pytest.mark.parametrize(
    ("asked", "said", "fix"),
    [
        (
            Asked(cache=Number.INT8),
            "cache int8: onnx bundles of profile npu know cache int16",
            "--",
        ),
        (
            Asked(weights=Number.FP16),
            "profile npu know weights int8, int4",
            "leave it out for int8",
        ),
    ],
)
def test_formats_that_an_npu_lacks_are_refused(asked: Asked, said: str, fix: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        resolve_options(SHARED, Target.ONNX, replace(asked, profile=Profile.NPU))
    assert fix in str(refused.value.fix)


def test_groups_libraries_and_a_choice_of_operators_are_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="one scale per row"):
        plan_weights_of(SHARED, replace(chosen(SHARED, Number.INT4), group=32))
    with pytest.raises(UsageError, match="hold no operator of a library"):
        check_target(SHARED, replace(chosen(SHARED), platforms=(Platform.LINUX_X86_64,)))
    with pytest.raises(UsageError, match="NPU graphs hold one form of attention"):
        open_session("onnx", made(SHARED), CONTEXT, kernel=True)


def test_int16_is_a_format_of_that_cache_alone() -> None:
    with pytest.raises(UsageError, match="cache int16: onnx bundles know cache fp32"):
        resolve_options(SHARED, Target.ONNX, Asked(cache=Number.INT16))


def test_an_export_calibrates_on_the_shipped_text_unless_told_otherwise(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(Path("samples/tiny"))
    options = resolve_options(checkpoint.spec, Target.ONNX, Asked(profile=Profile.NPU))
    plan = plan_export(checkpoint, options, None, need_tokenizer=True)
    assert plan.options.calibration == "shipped" and len(plan.calibration) >= 4096
    assert "calibrated on shipped" in plan.notes[0]
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(UsageError, match="too few to calibrate with"):
        plan_export(checkpoint, options, None, need_tokenizer=True, calibration=short)


def test_an_export_without_a_tokenizer_has_no_text_to_calibrate_on(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(Path("samples/tiny") / name, tmp_path / name)
    checkpoint = open_checkpoint(tmp_path)
    options = resolve_options(checkpoint.spec, Target.ONNX, Asked(profile=Profile.NPU))
    with pytest.raises(UsageError, match="needs a tokenizer") as refused:
        plan_export(checkpoint, options, None, need_tokenizer=False)
    assert "--tokenizer DIR" in str(refused.value.fix)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_an_encoding_holds_its_range_and_zero_exactly(
    low: float, high: float, signed: bool
) -> None:
    found = encoding(low, high, signed)
    least, most = (-32_768, 32_767) if signed else (0, 65_535)
    assert found.scale > 0 and least <= found.zero <= most and (found.zero == 0 or not signed)
    for value in (low, 0.0, high):
        level = min(most, max(least, round(value / found.scale) + found.zero))
        assert (level - found.zero) * found.scale == pytest.approx(value, abs=found.scale)
