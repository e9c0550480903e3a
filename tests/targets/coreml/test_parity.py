"""Packages compute their source models, to the number, and the gate refuses wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onekv.export.golden import golden_run
from onekv.export.manifest import Parity
from onekv.export.model.decoder import build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions, Profile
from onekv.export.plan import integer_rules
from onekv.export.targets.coreml import operators
from onekv.export.targets.coreml.lower import stored_weight
from onekv.export.verify import check_parity
from onekv.quantize.numbers import Number
from onekv.runtime.coreml_session import evaluated
from onekv.runtime.mil import Precision, read_package
from onekv.runtime.mil.summary import summarise
from onekv.runtime.sessions import ContextFullError
from tests.specs import LLAMA, PAPER, llama_spec, tiny_decoder, token_ids
from tests.targets.coreml.conftest import CONTEXT, Lowered, lower_tiny, options, quantised

ROPE = LLAMA["llama Q-GQA-2"]
# Rows of the Neural Engine's states are multiples of 32 wide.
NPU_ROPE, NPU_PAPER = replace(ROPE, head_dim=32), replace(PAPER["Q-K=V"], head_dim=32)

FORMS = {
    "paper": (PAPER["Q-K=V"], options()),
    "paper, two tensors": (PAPER["GQA-2"], options()),
    "paper, query is key": (PAPER["Q=K=V"], options()),
    "rope": (ROPE, options()),
    "rope, window": (LLAMA["llama Q-GQA-2, window"], options()),
    "rope, wide heads": (LLAMA["llama Q-GQA-2, wide heads, biases"], options()),
    "rope, two tensors, int8": (LLAMA["llama GQA-2"], options(Number.INT8)),
    "rope, int4": (LLAMA["llama Q-GQA-2, separate head"], options(Number.INT4)),
    "npu rope, int4": (NPU_ROPE, options(Number.INT4, Profile.NPU)),
    "npu paper": (NPU_PAPER, options(profile=Profile.NPU)),
}


def parity(package: Path, spec: ModelSpec, chosen: ExportOptions) -> Parity:
    state = tiny_decoder(spec).state_dict()
    for name, weight in quantised(spec, chosen).items():
        state[name] = weight.dequantise()
    if integer_rules(chosen).own_tool:
        state = {name: stored_weight(name, tensor, chosen) for name, tensor in state.items()}
    source = DecoderSession(build_decoder(spec, state, CONTEXT), CONTEXT - 1)
    golden = golden_run(source, token_ids(spec, 22)[0].tolist())
    return check_parity(evaluated(read_package(package), CONTEXT), golden, chosen, "source model")


@pytest.mark.parametrize(("spec", "chosen"), FORMS.values(), ids=FORMS.keys())
def test_a_package_computes_its_source_model(
    lowered: Lowered, spec: ModelSpec, chosen: ExportOptions
) -> None:
    found = parity(lowered(spec, chosen), spec, chosen)
    assert found.passed, found.reasons


@pytest.mark.parametrize("sharing", [Sharing.K_IS_V, Sharing.QKV])
def test_one_state_holds_all_layers_and_no_shape_is_open(
    lowered: Lowered, sharing: Sharing
) -> None:
    spec = llama_spec(sharing, kv_heads=2)
    summary = summarise(read_package(lowered(spec, options())))
    each = spec.layers * spec.kv_heads * CONTEXT * spec.head_dim * 2
    names = ["cache"] if sharing.one_tensor else ["key_cache", "value_cache"]
    assert summary.states == dict.fromkeys(names, each)
    assert {f.name for f in summary.functions} == {"prefill", "decode"}
    for function in summary.functions:
        assert not function.dynamic
        assert "custom_layer" not in function.operators
        assert function.operators["scaled_dot_product_attention"] == spec.layers


def test_the_npu_profile_has_convolutions_only(lowered: Lowered) -> None:
    package = read_package(lowered(NPU_PAPER, options(profile=Profile.NPU)))
    for function in summarise(package).functions:
        assert {"linear", "scaled_dot_product_attention"}.isdisjoint(function.operators)
        assert function.operators["conv"] == 5 * NPU_PAPER.layers + 1


def test_functions_share_their_weights(lowered: Lowered) -> None:
    package = read_package(lowered(ROPE, options()))
    size = sum(p.numel() for p in tiny_decoder(ROPE).parameters()) * 2
    # Small constants are padded to 64 bytes each; a second copy would double the size.
    assert size <= package.weight_bytes < 1.3 * size


def test_metadata_survives_the_merge_of_functions(lowered: Lowered) -> None:
    metadata = read_package(lowered(ROPE, options())).metadata
    assert metadata["onekv.variant"] == "Q-GQA-2"
    assert metadata["onekv.eos_token_ids"] == "[1]"


def test_a_full_context_refuses_more_tokens_and_stays_as_it_is(lowered: Lowered) -> None:
    session = evaluated(read_package(lowered(ROPE, options())), CONTEXT)
    session.step(list(range(CONTEXT - 1)))
    with pytest.raises(ContextFullError):
        session.step([1, 2])
    assert session.position == CONTEXT - 1
    assert session.step([1]).shape == (1, ROPE.vocab_size)


def test_fp32_mode_rounds_less_than_fp16_mode(lowered: Lowered) -> None:
    package, tokens = read_package(lowered(ROPE, options())), token_ids(ROPE, 20)
    with torch.no_grad():
        want = tiny_decoder(ROPE)(tokens, torch.zeros(1, dtype=torch.int64))[0].numpy()
    wide, narrow = (
        np.linalg.norm(evaluated(package, CONTEXT, mode).step(tokens[0].tolist()) - want)
        for mode in (Precision.FP32, Precision.FP16)
    )
    assert 0 < wide < narrow


def _slot_off_by_one(shared: Any, cache: Any, rows: Any, pos: Any) -> Any:
    return _APPEND(shared, cache, rows, operators.mb.add(x=pos, y=np.int32([1])))


def _future_unmasked(pos: Any, new: int, length: int, group: int, window: int) -> Any:
    return _MASK(operators.mb.add(x=pos, y=np.int32([length])), new, length, group, window)


def _first_slot_hidden(pos: Any, new: int, length: int, group: int, window: int) -> Any:
    first = np.zeros((1, 1, 1, length), np.float16)
    first[..., 0] = -3e4
    return operators.mb.add(x=_MASK(pos, new, length, group, window), y=first)


def _query_rope_off_by_one(rows: Any, cos: np.ndarray, sin: np.ndarray) -> Any:
    """Keys one position behind are queries one position ahead."""
    behind = [
        np.concatenate((table[1:2] * sign, table[:-1])) for table, sign in ((cos, 1), (sin, -1))
    ]
    return _ROTATE(rows, *behind)


_APPEND, _MASK, _ROTATE = operators._append, operators._mask, operators._rotate
MUTATIONS = {
    "a slot off by one": ("_append", _slot_off_by_one),
    "the future unmasked": ("_mask", _future_unmasked),
    "the first slot hidden": ("_mask", _first_slot_hidden),
    "the query's position off by one": ("_rotate", _query_rope_off_by_one),
}


@pytest.mark.parametrize(("name", "wrong"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_the_gate_refuses_a_lowering_that_is_wrong_in_one_way(
    name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(operators, name, wrong)
    found = parity(lower_tiny(tmp_path, ROPE, options()), ROPE, options())
    assert not found.passed
    assert max(found.prefill.relative_l2, found.decode.relative_l2) > 2 * found.tolerance
