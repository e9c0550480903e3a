"""What is in the exported file: the operator, its body, the caches, the weights."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from torch import Tensor

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target
from onekv.export.plan import cache_per_token, parameters
from onekv.export.targets import LowerRequest
from onekv.export.targets.onnx.lower import lower
from onekv.export.targets.onnx.rules import RULES
from onekv.quantize.numbers import Number
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from tests.specs import LLAMA, PAPER, tiny_decoder
from tests.targets.onnx.conftest import CONTEXT, Lowered

FLOATS = (Number.FP32, Number.FP16)
SHARED, BASELINE = LLAMA["llama Q-GQA-2"], LLAMA["llama GQA-2"]
OLD_RUNTIME = Path(__file__).parents[3] / "build" / "onnxruntime-1.24.4"


def load(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def test_each_layer_is_one_node_of_the_operator(lowered: Lowered, spec: ModelSpec) -> None:
    model = load(lowered(spec))
    ours = [node.op_type for node in model.graph.node if node.domain == "onekv"]
    assert ours == ["Attend" if spec.sharing.one_tensor else "AttendKV"] * spec.layers


def test_the_file_needs_nothing_newer_than_opset_18(lowered: Lowered) -> None:
    model = load(lowered(SHARED))
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "onekv": 1}
    (function,) = model.functions
    assert {entry.domain: entry.version for entry in function.opset_import} == {"": 18}
    onnx.checker.check_model(lowered(SHARED))


@pytest.mark.parametrize("spec", [SHARED, BASELINE, PAPER["Q-MQA"]], ids=lambda s: s.variant)
@pytest.mark.parametrize("number", FLOATS)
def test_a_session_caches_the_bytes_that_the_plan_gives(
    lowered: Lowered, spec: ModelSpec, number: Number
) -> None:
    session = OnnxSession(lowered(spec, number), CONTEXT)
    assert session.cache_bytes == cache_per_token(spec, number) * CONTEXT


def test_the_shared_cache_is_half_of_its_twins(lowered: Lowered) -> None:
    one, two = (OnnxSession(lowered(spec), CONTEXT) for spec in (SHARED, BASELINE))
    assert 2 * one.cache_bytes == two.cache_bytes


@pytest.mark.parametrize("spec", [SHARED, PAPER["Q-GQA-2"]], ids=["rope", "learned"])
def test_weights_are_stored_once_beside_the_graph(lowered: Lowered, spec: ModelSpec) -> None:
    path = lowered(spec)
    tables = 0 if spec.rope is None else CONTEXT * spec.head_dim
    model = load(path)
    inside = [t for t in model.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    external = [t for t in model.graph.initializer if t not in inside]
    held = sum(int(np.prod(t.dims)) for t in external)
    assert {t.name for t in external} >= {"decoder.embed_tokens.weight"}
    small = sum(int(np.prod(t.dims)) for t in inside if t.name.startswith("decoder."))
    assert held + small == parameters(spec) + tables
    assert not [n for n in model.graph.node if n.op_type == "Transpose" and "weight" in n.input[0]]


def test_the_cache_is_appended_in_place(lowered: Lowered) -> None:
    session = OnnxSession(lowered(SHARED), CONTEXT)
    session.step([1, 2, 3])
    before = {name: value.numpy().copy() for name, value in session._caches.items()}
    session.step([4])
    for name, value in session._caches.items():
        np.testing.assert_array_equal(value.numpy()[:, :, :3], before[name][:, :, :3])
        assert np.abs(value.numpy()[:, :, 3]).max() > 0
        assert not value.numpy()[:, :, 4:].any()


def test_rows_past_the_filled_length_are_never_read(lowered: Lowered) -> None:
    """The cost of a step follows the filled length: poison beyond it changes nothing."""
    clean, poisoned = (OnnxSession(lowered(SHARED), CONTEXT) for _ in range(2))
    for value in poisoned._caches.values():
        value.numpy()[...] = np.nan
    for tokens in ([1, 2, 3], [4], [5, 6]):
        np.testing.assert_array_equal(poisoned.step(tokens), clean.step(tokens))


def test_a_cache_of_any_length_is_accepted(lowered: Lowered) -> None:
    short, long = OnnxSession(lowered(SHARED), 8), OnnxSession(lowered(SHARED), CONTEXT)
    np.testing.assert_array_equal(short.step([1, 2, 3]), long.step([1, 2, 3]))


def test_onnxruntime_itself_refuses_a_row_past_the_cache(lowered: Lowered) -> None:
    session = ort.InferenceSession(str(lowered(SHARED)))
    feeds = {
        entry.name: np.zeros((1, SHARED.kv_heads, 4, SHARED.head_dim // 2), np.float32)
        for entry in session.get_inputs()
        if "past" in entry.name
    }
    feeds |= {"input_ids": np.array([[1]]), "position_ids": np.array([[4]])}
    with pytest.raises(Exception, match="indices element out of data bounds"):
        session.run(None, feeds)


@pytest.mark.skipif(not OLD_RUNTIME.is_dir(), reason=f"no {OLD_RUNTIME.name}: run `make test`")
def test_the_same_files_give_the_same_logits_in_onnxruntime_1_24(lowered: Lowered) -> None:
    """Every model in every format of weights and rows."""
    paths = [
        lowered(spec, number, number)
        for spec in (SHARED, BASELINE, PAPER["Q-GQA-2"])
        for number in RULES.weights
    ]
    script = f"""
import json, onnxruntime
from pathlib import Path
from tests.targets.onnx.test_graph import stock_logits
rows = [stock_logits(Path(path)).tolist() for path in {[str(path) for path in paths]}]
print(json.dumps([onnxruntime.__version__, rows]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{OLD_RUNTIME}:{Path.cwd()}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    version, rows = json.loads(done.stdout)
    assert version == "1.24.4"
    for path, old in zip(paths, rows, strict=True):
        np.testing.assert_allclose(old, stock_logits(path), rtol=1e-3, atol=1e-3, err_msg=str(path))


def stock_logits(path: Path) -> np.ndarray:
    """Logits of a few tokens, by the runtime's own operators and with float activations."""
    session = OnnxSession(path, CONTEXT, OnnxOptions(exact=True, kernel=False))
    return np.concatenate([session.step([1, 2, 3]), session.step([4])])


def test_an_export_lets_go_of_the_weights_that_it_read(tmp_path: Path) -> None:
    held: list[weakref.ref[Tensor]] = []

    def load() -> dict[str, Tensor]:
        state = {name: tensor.clone() for name, tensor in tiny_decoder(SHARED).state_dict().items()}
        held.extend(weakref.ref(tensor) for tensor in state.values())
        return state

    lower(LowerRequest(SHARED, ExportOptions(Target.ONNX, CONTEXT), load, (1,), None), tmp_path)
    assert held and not any(reference() is not None for reference in held)
