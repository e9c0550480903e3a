"""Weights as integers: the error that rounding allows, and values that every target can hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onekv.errors import OnekvError
from onekv.quantize.numbers import Number
from onekv.quantize.plan import TensorPlan, WeightPlan
from onekv.quantize.weights import LEVELS, quantise, quantise_weights

NUMBERS = [Number.INT8, Number.INT4]


def weights(rows: int = 24, columns: int = 64, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def plain_error(weight: Tensor, number: Number, group: int) -> Tensor:
    """Squared error of rounding to nearest over each group's whole range."""
    grouped = weight.reshape(len(weight), -1, group)
    scales = grouped.abs().amax(-1, keepdim=True) / LEVELS[number][1]
    return ((grouped / scales).round() * scales - grouped).square().sum()


@given(st.sampled_from(NUMBERS), st.sampled_from([16, 32, 64]), st.floats(-12, 3))
def test_no_value_moves_by_more_than_half_a_step_unless_it_is_cut_off(
    number: Number, group: int, exponent: float
) -> None:
    weight = weights(scale=10**exponent)
    got = quantise(weight, number, group)
    low, high = LEVELS[number]
    assert got.values.min() >= low and got.values.max() <= high
    step = got.scales.repeat_interleave(group, dim=1)
    inside = (got.values > low) & (got.values < high)
    error = (got.dequantise() - weight).abs()
    assert (error <= 0.5001 * step)[inside].all()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_error_is_not_above_that_of_rounding_to_nearest(number: Number) -> None:
    weight = weights(rows=64, columns=256)
    got = (quantise(weight, number, 32).dequantise() - weight).square().sum()
    bound = 1.01 if number is Number.INT8 else 0.97
    assert got <= bound * plain_error(weight, number, 32)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-6, 1e-9])
def test_scales_are_values_that_every_target_stores(number: Number, scale: float) -> None:
    scales = quantise(weights(scale=scale), number, 32).scales
    assert torch.equal(scales.half().float(), scales) and (scales > 0).all()
    if number is Number.INT4:
        assert torch.equal(scales.bfloat16().float(), scales)


@pytest.mark.parametrize("scale", [1.0, 0.02, 1e-3])
def test_int4_weights_are_exact_in_fp16(scale: float) -> None:
    dense = quantise(weights(scale=scale), Number.INT4, 32).dequantise()
    assert torch.equal(dense.half().float(), dense)


@pytest.mark.parametrize("number", NUMBERS)
def test_weights_on_the_grid_stay_what_they_are(number: Number) -> None:
    dense = quantise(weights(), number, 32).dequantise()
    torch.testing.assert_close(quantise(dense, number, 32).dequantise(), dense, rtol=0, atol=0)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 1e-30])
def test_constant_weights_stay_constant(number: Number, value: float) -> None:
    dense = quantise(torch.full((4, 64), value), number, 32).dequantise()
    assert (dense == dense[0, 0]).all()
    assert float(dense[0, 0]) == pytest.approx(value, rel=0.01, abs=1e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    weight = weights()
    weight[3, 5] = bad
    plan = WeightPlan((TensorPlan("layers.7.mlp.up_proj.weight", (24, 64), Number.INT4, 32),))
    with pytest.raises(OnekvError, match=r"layers\.7\.mlp\.up_proj\.weight: .* not finite"):
        quantise_weights({"layers.7.mlp.up_proj.weight": weight}, plan, lambda *_: None)


def test_weights_beyond_any_scale_are_refused() -> None:
    with pytest.raises(OnekvError, match="beyond what a scale holds"):
        quantise(weights(scale=1e7), Number.INT4, 32)


def test_rows_in_parts_give_what_all_at_once_give() -> None:
    weight = weights(rows=40, columns=32 * 1024)
    whole = quantise(weight, Number.INT4, 32)
    part = quantise(weight[33:34], Number.INT4, 32)
    assert torch.equal(whole.values[33], part.values[0])
    assert torch.equal(whole.scales[33], part.scales[0])
