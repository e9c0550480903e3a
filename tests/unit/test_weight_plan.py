"""What every weight is stored as is settled before anything is read, and impossible wishes fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onekv.errors import UsageError
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import Sharing
from onekv.export.options import Asked, ExportOptions, Target
from onekv.export.plan import plan_memory, plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules, WeightPlan, parse_override, plan_weights
from tests.specs import PAPER, llama_spec

SPEC = llama_spec(Sharing.K_IS_V, kv_heads=2, ffn_size=96)
UNTIED = llama_spec(Sharing.K_IS_V, kv_heads=2, tied_head=False)
RULES = IntegerRules(groups={Number.INT8: (16, 32), Number.INT4: (16, 32, 64)})


def plan(number: Number, *overrides: str, group: int | None = None) -> WeightPlan:
    parsed = [parse_override(text) for text in overrides]
    return plan_weights(parameter_shapes(SPEC), RULES, number, group, parsed)


def forms(plan: WeightPlan) -> dict[str, tuple[str, int]]:
    return {t.name.removesuffix(".weight"): (str(t.number), t.group) for t in plan.tensors}


def test_int8_has_one_scale_per_row_and_int4_one_per_32_columns() -> None:
    assert forms(plan(Number.INT8))["layers.0.mlp.down_proj"] == ("int8", 96)
    assert forms(plan(Number.INT4))["layers.0.mlp.down_proj"] == ("int4", 32)


def test_norms_small_matrices_and_positions_stay_floats() -> None:
    found = forms(plan(Number.INT4))
    assert found["norm"] == found["layers.1.input_layernorm"] == ("fp32", 0)
    paper = PAPER["Q-MQA"]
    found = forms(plan_weights(parameter_shapes(paper), RULES, Number.INT8))
    assert found["embed_positions"] == ("fp32", 0)
    assert found["layers.0.self_attn.k_proj"] == ("fp32", 0)  # 16 x 64


def test_the_matrix_of_the_logits_is_int8_in_a_model_of_int4() -> None:
    assert forms(plan(Number.INT4))["embed_tokens"] == ("int8", 64)
    untied = forms(plan_weights(parameter_shapes(UNTIED), RULES, Number.INT4))
    assert (untied["embed_tokens"], untied["lm_head"]) == (("int4", 32), ("int8", 64))


def test_the_last_override_that_matches_holds() -> None:
    found = forms(plan(Number.INT4, "layers.0.*=int8", "*.up_proj=fp32", "embed_tokens=int4:64"))
    assert found["layers.0.mlp.down_proj"] == ("int8", 96)
    assert found["layers.0.mlp.up_proj"] == found["layers.1.mlp.up_proj"] == ("fp32", 0)
    assert found["layers.1.mlp.down_proj"] == ("int4", 32)
    assert found["embed_tokens"] == ("int4", 64)


def test_bytes_are_bits_times_parameters_and_two_for_each_scale() -> None:
    (tensor,) = [t for t in plan(Number.INT4).tensors if t.name == "layers.0.mlp.up_proj.weight"]
    assert tensor.bytes == 96 * 64 // 2 + 96 * 2 * 2
    assert tensor.bits == 4.5
    whole = plan(Number.INT8)
    assert whole.bytes == sum(t.bytes for t in whole.tensors)
    options = ExportOptions(Target.ONNX, 32, Number.INT8)
    assert plan_memory(SPEC, options).weights == plan_weights_of(SPEC, options).bytes


@pytest.mark.parametrize(
    ("overrides", "group", "message"),
    [
        (["layer.0.*=int8"], None, "no matrix has such a name"),
        (["norm=int8"], None, "no matrix has such a name"),
        (["*=fp16"], None, "what stays a float in this bundle is fp32"),
        ([], 48, "int4 weights in groups of 48 columns: the target knows 16, 32, 64"),
        (["layers.1.mlp.down_proj=int4:64"], None, "96 columns, which groups of 64 do not divide"),
        (["layers.1.*=fp32:32"], None, "fp32 weights have no scales"),
    ],
)
def test_what_fits_nothing_is_refused(
    overrides: list[str], group: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        plan(Number.INT4, *overrides, group=group)


def test_a_shape_that_no_group_divides_is_named_with_the_group_that_fits() -> None:
    with pytest.raises(UsageError) as caught:
        plan(Number.INT4, group=64)
    assert "layers.0.mlp.down_proj.weight has 96 columns" in caught.value.message
    assert caught.value.fix == ("Groups of 32 do: --override 'layers.0.mlp.down_proj=int4:32'.")


@pytest.mark.parametrize("text", ["", "int8", "=int8", "a=int5", "a=int4:", "a=int4:x"])
def test_an_override_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not PATTERN=FORMAT"):
        parse_override(text)


def test_a_tool_that_rounds_by_itself_takes_no_overrides() -> None:
    rules = IntegerRules(own_tool=True)
    with pytest.raises(UsageError, match="rounds all matrices alike"):
        plan_weights(parameter_shapes(SPEC), rules, Number.INT4, None, [parse_override("*=int8")])


def test_options_carry_group_and_overrides() -> None:
    asked = Asked(weights=Number.INT4, group=16, overrides=("layers.0.*=int8",))
    options = resolve_options(SPEC, Target.ONNX, asked)
    found = forms(plan_weights_of(SPEC, options))
    assert found["layers.0.mlp.up_proj"] == ("int8", 64)
    assert found["layers.1.mlp.up_proj"] == ("int4", 16)


def test_int8_in_onnx_has_a_scale_per_32_columns_and_per_row_beside_int4() -> None:
    for weights, group in ((Number.INT8, 32), (Number.INT4, 64)):
        options = resolve_options(SPEC, Target.ONNX, Asked(weights=weights))
        assert forms(plan_weights_of(SPEC, options))["embed_tokens"] == ("int8", group)


def test_columns_that_the_default_group_does_not_divide_have_a_scale_per_row() -> None:
    rules = IntegerRules(groups={Number.INT8: (32,)}, int8_group=32)
    plan = plan_weights({"a.weight": (64, 80)}, rules, Number.INT8)
    assert plan.tensors[0].group == 80


def test_a_dry_run_lists_every_weight(sample_model: Path) -> None:
    command = [str(Path(sys.executable).with_name("onekv")), "export", str(sample_model)]
    command += ["--weights", "int8", "--override", "layers.0.*=int4", "--dry-run"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    weights = {entry["name"]: entry for entry in json.loads(done.stdout)["weights"]}
    entry = weights["layers.0.mlp.down_proj.weight"]
    assert (entry["number"], entry["group"], entry["bits"]) == ("int4", 32, 4.5)
    assert entry["bytes"] == 4.5 * entry["shape"][0] * entry["shape"][1] / 8
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "layers.0.mlp.down_proj" in shown and "int4:32" in shown
