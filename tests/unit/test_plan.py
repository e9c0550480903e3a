"""Memory from a specification alone: the paper's figures, exactly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from onekv.errors import UsageError
from onekv.export.model.paper import SIZES, paper_model, variants
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import Asked, ExportOptions, Ops, Target
from onekv.export.phones import PHONES, find_phone
from onekv.export.plan import (
    cache_per_token,
    compare_caches,
    parameters,
    plan_memory,
    plan_process,
    three_projections,
)
from onekv.export.plan_fits import longest_context, parse_bytes
from onekv.export.plan_targets import budgets, plan_targets, summary
from onekv.quantize.numbers import Number
from tests.specs import LLAMA, tiny_decoder

# KB per token at 16 bits for the 300M models (arXiv 2606.04032).
KILOBYTES = {
    "qkv": 80,
    "q-k=v": 40,
    "q=k-v": 80,
    "q=k=v": 40,
    "gqa-4": 20,
    "mqa": 5,
    "q-gqa-4": 10,
    "q-mqa": 2.5,
}
# MiB at 32,768 tokens and 16 bits for the 1.2B models.
MEBIBYTES = {
    "qkv": 5632,
    "q-k=v": 2816,
    "gqa-8": 1408,
    "q-gqa-8": 704,
    "mqa": 176,
    "q-mqa": 88,
}


@pytest.mark.parametrize(("variant", "kilobytes"), KILOBYTES.items())
def test_cache_per_token_is_the_papers(variant: str, kilobytes: float) -> None:
    assert cache_per_token(paper_model(f"300m/{variant}"), Number.FP16) == kilobytes * 1024


@pytest.mark.parametrize(("variant", "mebibytes"), MEBIBYTES.items())
def test_cache_at_32768_tokens_is_the_papers(variant: str, mebibytes: int) -> None:
    options = ExportOptions(Target.ONNX, 32768, Number.FP16, Number.FP16)
    assert plan_memory(paper_model(f"1.2b/{variant}"), options).cache == mebibytes * 2**20


@pytest.mark.parametrize("size", SIZES)
def test_savings_are_the_papers_formulas(size: str) -> None:
    """1 - g/H with two tensors and 1 - g/(2H) with one (table of variants)."""
    whole = cache_per_token(SIZES[size], Number.FP16)
    for spec in variants(SIZES[size]).values():
        part = Fraction(spec.kv_heads * spec.sharing.cached_tensors, 2 * spec.heads)
        assert cache_per_token(spec, Number.FP16) == whole * part


def test_one_tensor_and_one_head_of_32_saves_984_permille() -> None:
    """The paper's table has 96.9%, which is the figure of 16 heads."""
    saved = {
        size: 1 - cache_per_token(paper_model(f"{size}/q-mqa"), Number.FP16) / whole
        for size, model in SIZES.items()
        for whole in [cache_per_token(model, Number.FP16)]
    }
    assert round(saved["1.2b"], 3) == 0.984 and round(saved["300m"], 3) == 0.969


def test_a_paper_model_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no size '7b'") as size:
        paper_model("paper:7b/qkv")
    assert "300m" in str(size.value.fix)
    with pytest.raises(UsageError, match="no variant 'gqa-3'") as variant:
        paper_model("paper:300m/gqa-3")
    assert "q-gqa-4" in str(variant.value.fix)


def test_parameters_are_the_decoders(spec: ModelSpec) -> None:
    assert parameters(spec) == sum(p.numel() for p in tiny_decoder(spec).parameters())


def test_a_shared_model_is_set_beside_its_twin_with_three_projections() -> None:
    rows = compare_caches(paper_model("300m/q-gqa-4"), 2048)
    assert [(row.variant, row.number) for row in rows] == [
        ("GQA-4", "fp32"),
        ("GQA-4", "fp16"),
        ("Q-GQA-4", "fp32"),
        ("Q-GQA-4", "fp16"),
    ]
    assert rows[0].total == 2 * rows[2].total == 20 * 2048 * 2048


@pytest.mark.parametrize("target", Target)
def test_a_total_is_the_sum_of_its_parts_and_the_twins_is_larger(target: Target) -> None:
    spec = paper_model("1.2b/q-gqa-8")
    (planned,) = plan_targets(spec, [target], Asked()).targets
    model, twin = planned.model, planned.twin
    assert twin is not None and twin.variant == "GQA-8"
    for plan in (model, twin):
        parts = plan.weights + plan.cache + plan.activations + plan.runtime
        assert plan.total == parts == plan.anonymous + plan.weights_mapped
        assert min(plan.cache, plan.activations, plan.runtime) > 0
    assert twin.cache == 2 * model.cache and twin.total > model.total


def test_weights_are_given_by_format() -> None:
    options = ExportOptions(Target.ONNX, 2048, Number.INT4, Number.FP32)
    plan = plan_process(paper_model("300m/q-k=v"), options)
    assert set(plan.formats) == {Number.INT4, Number.INT8, Number.FP32}
    embedding = 50_304 * 1024 + 2 * 50_304
    assert plan.formats[Number.INT8] == embedding
    stored = sum(plan.formats.values())
    assert plan.weights_mapped == stored
    # Packed copies: the integers again, and three floats for each of their blocks.
    integers = plan.formats[Number.INT4] + plan.formats[Number.INT8]
    assert 1.05 * integers < plan.weights - stored < 1.7 * integers


def test_scores_of_stock_operators_are_counted() -> None:
    spec = paper_model("300m/q-k=v")
    kernel = ExportOptions(Target.ONNX, 2048)
    stock = replace(kernel, ops=Ops.STOCK)
    matrix = 16 * 256 * 2048 * 4
    added = plan_process(spec, stock).activations - plan_process(spec, kernel).activations
    # The logits of 256 tokens, twice, are larger than one matrix of scores.
    assert 0 < added < 3 * matrix


def test_a_rope_model_and_odd_rows_have_a_plan_too() -> None:
    """Rows of floats have a size for any head_dim; the kernel's limits are the kernel's."""
    narrow = replace(LLAMA["llama Q-K=V"], head_dim=20)
    assert cache_per_token(narrow, Number.FP16) == 2 * 4 * 20 * 2
    with pytest.raises(UsageError, match="head_dim 20 is not a multiple of 8"):
        cache_per_token(narrow, Number.INT8)


@pytest.mark.parametrize(("text", "count"), [("2GiB", 2**31), ("1.5 GB", 1_500_000_000), ("7", 7)])
def test_sizes_are_read_in_both_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "2 bananas", "0", "1e3", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_bytes(text)


@pytest.mark.parametrize("target", [Target.ONNX, Target.COREML])
def test_the_longest_context_fits_and_the_next_one_does_not(target: Target) -> None:
    spec = replace(LLAMA["llama Q-GQA-2"], max_positions=100_000)
    options = plan_targets(spec, [target], Asked()).targets[0].model.options
    step = 32 if target is Target.COREML else 1
    budget = plan_process(spec, replace(options, context=4096)).total + 1
    fit = longest_context(spec, options, budget)
    assert fit.context == 4096 and fit.needed == budget - 1 and not fit.by_positions
    assert plan_process(spec, replace(options, context=4096 + step)).total > budget


def test_a_budget_beyond_all_positions_and_one_below_the_weights_are_told() -> None:
    spec = paper_model("300m/q-k=v")
    options = ExportOptions(Target.ONNX, 2048)
    roomy = longest_context(spec, options, 2**40)
    assert roomy.context == 2048 and roomy.by_positions
    tight = longest_context(spec, options, 2**20)
    assert tight.context is None and tight.needed > 4 * 284_000_000


def test_one_tensor_fits_a_longer_context_than_two() -> None:
    spec = replace(LLAMA["llama Q-K=V"], max_positions=100_000)
    limits = budgets(parse_bytes("20MiB"), None)
    (fit,) = plan_targets(spec, [Target.ONNX], Asked(), limits).targets[0].fits
    assert fit.twin is not None and fit.twin.context is not None and fit.model.context is not None
    assert fit.model.context > 1.5 * fit.twin.context


def test_every_limit_of_a_phone_is_below_its_memory_and_names_its_source() -> None:
    for phone in PHONES.values():
        for limit in phone.limits:
            assert 2**30 < limit.bytes < phone.memory and "." in limit.source.split("/")[0]


def test_an_unknown_phone_is_refused_with_the_table() -> None:
    with pytest.raises(UsageError, match="no phone 'nokia-3310'") as error:
        find_phone("nokia-3310")
    assert "iphone-13-pro" in str(error.value.fix)


def test_a_target_that_cannot_store_it_is_left_out_unless_it_was_named() -> None:
    spec = paper_model("300m/q-k=v")
    planned = plan_targets(spec, (), Asked(weights=Number.FP32))
    assert Target.COREML in planned.skipped
    assert [t.model.options.target for t in planned.targets] == [Target.ONNX, Target.EXECUTORCH]
    with pytest.raises(UsageError, match="coreml bundles know weights"):
        plan_targets(spec, [Target.COREML], Asked(weights=Number.FP32))


def test_a_context_beyond_the_positions_is_marked_as_arithmetic() -> None:
    spec = paper_model("1.2b/q-gqa-8")
    asked = Asked(context=32768, weights=Number.FP16)
    planned = plan_targets(spec, [Target.ONNX], asked)
    assert planned.arithmetic_only and planned.targets[0].model.cache == 704 * 2**20
    assert planned.targets[0].model.parameters == parameters(spec)
    assert not plan_targets(spec, [Target.ONNX], Asked()).arithmetic_only


def test_the_summary_holds_sums_and_the_saving() -> None:
    found = summary(plan_targets(paper_model("300m/q-k=v"), [Target.ONNX], Asked()))
    (target,) = found["targets"]  # type: ignore[misc]
    assert target["saved"] == target["twin"]["total"] - target["plan"]["total"] > 0


def test_only_a_model_of_one_tensor_has_a_twin() -> None:
    assert three_projections(paper_model("300m/gqa-4")) is None
    twin = three_projections(paper_model("300m/q=k=v"))
    assert twin is not None and twin.sharing is Sharing.QKV


def test_planning_and_help_import_no_framework() -> None:
    script = (
        "import sys, onekv.cli\n"
        "from onekv.export.plan_targets import plan_targets\n"
        "from onekv.export.model.paper import paper_model\n"
        "from onekv.export.options import Asked\n"
        "assert len(plan_targets(paper_model('300m/q-k=v'), (), Asked()).targets) == 3\n"
        "heavy = {'torch', 'onnx', 'transformers', 'coremltools', 'executorch', 'matplotlib'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
