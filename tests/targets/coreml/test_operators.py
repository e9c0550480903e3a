"""Each operator of the evaluator against coremltools' own evaluation of constant inputs."""

from __future__ import annotations

import math
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Function, Program, types

from onekv.runtime.mil.operators import OPERATORS
from onekv.runtime.mil.package import constant_value

_RNG = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


X, Y, ROWS = _floats(2, 3, 4), _floats(2, 3, 4), _floats(1, 2, 5, 8)
INTS = np.int32([[7, -7, 3], [2, 9, 4]])
TRUE = np.array([[True, False, True], [False, False, True]])
BOUNDS = {"begin": np.int32([0, 1, 0]), "end": np.int32([2, 3, 4])}
_BINARY = {"x": X, "y": Y}
_LOGICAL = {"x": TRUE, "y": ~TRUE}
_HALF = _floats(6, 4).astype(np.float16)
_INT4 = types.nptype_from_builtin(types.int4)
_UINT4 = types.nptype_from_builtin(types.uint4)

CASES: dict[str, dict[str, Any]] = {
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "maximum": _BINARY,
    "minimum": _BINARY,
    "real_div": _BINARY,
    "pow": {"x": np.abs(X), "y": np.float32(1.5)},
    "floor_div": {"x": INTS, "y": np.int32([2, 3, 4])},
    "mod": {"x": INTS, "y": np.int32([2, 3, 4])},
    "equal": {"x": INTS, "y": INTS.T[:2, :1]},
    "not_equal": {"x": INTS, "y": INTS[:, :1]},
    "greater": _BINARY,
    "greater_equal": _BINARY,
    "less": _BINARY,
    "less_equal": _BINARY,
    "logical_and": _LOGICAL,
    "logical_or": _LOGICAL,
    "logical_not": {"x": TRUE},
    "abs": {"x": X},
    "cos": {"x": X},
    "sin": {"x": X},
    "exp": {"x": X},
    "sqrt": {"x": np.abs(X)},
    "square": {"x": X},
    "tanh": {"x": X},
    "erf": {"x": X},
    "identity": {"x": X},
    "rsqrt": {"x": np.abs(X), "epsilon": np.float32(1e-3)},
    "inverse": {"x": X, "epsilon": np.float32(1e-3)},
    "sigmoid": {"x": X},
    "relu": {"x": X},
    "gelu": {"x": X, "mode": "TANH_APPROXIMATION"},
    "cast": {"x": X, "dtype": "int32"},
    "select": {"cond": TRUE, "a": INTS, "b": -INTS},
    "reduce_mean": {"x": X, "axes": np.int32([-1]), "keep_dims": True},
    "reduce_sum": {"x": X, "axes": np.int32([0, 2]), "keep_dims": False},
    "reduce_max": {"x": X, "axes": np.int32([1]), "keep_dims": True},
    "reduce_min": {"x": X, "axes": np.int32([1]), "keep_dims": False},
    "softmax": {"x": X, "axis": np.int32(-1)},
    "layer_norm": {
        "x": X,
        "axes": np.int32([2]),
        "gamma": _floats(4),
        "beta": _floats(4),
        "epsilon": np.float32(1e-3),
    },
    "linear": {"x": X, "weight": _floats(5, 4), "bias": _floats(5)},
    "matmul": {"x": X, "y": Y, "transpose_x": False, "transpose_y": True},
    "scaled_dot_product_attention": {
        "query": ROWS,
        "key": _floats(1, 2, 7, 8),
        "value": _floats(1, 2, 7, 8),
        "attn_mask": _floats(5, 7),
    },
    "reshape": {"x": X, "shape": np.int32([3, -1])},
    "transpose": {"x": X, "perm": np.int32([2, 0, 1])},
    "expand_dims": {"x": X, "axes": np.int32([0, 2])},
    "squeeze": {"x": X[:, :1], "axes": np.int32([1])},
    "concat": {"values": [X, Y], "axis": np.int32(1)},
    "stack": {"values": [X, Y], "axis": np.int32(1)},
    "tile": {"x": X, "reps": np.int32([1, 2, 1])},
    "shape": {"x": X},
    "range_1d": {"start": np.int32(2), "end": np.int32(11), "step": np.int32(3)},
    "gather": {"x": X, "indices": np.int32([2, 0, -1]), "axis": np.int32(1)},
    "slice_by_index": {**BOUNDS, "x": X, "end_mask": [True, False, False]},
    "slice_update": {**BOUNDS, "x": X, "update": _floats(2, 2, 4)},
    "constexpr_blockwise_shift_scale": {
        "data": _RNG.integers(-7, 8, (6, 4)).astype(_INT4),
        "scale": np.abs(_HALF[:, :2]),
    },
    "constexpr_lut_to_dense": {
        "indices": _RNG.integers(0, 16, (6, 4)).astype(_UINT4),
        "lut": _floats(3, 1, 16, 1).astype(np.float16),
    },
}


@pytest.mark.parametrize("kind", CASES)
def test_an_operator_agrees_with_coremltools(kind: str) -> None:
    want = _by_coremltools(kind, CASES[kind])
    got = OPERATORS[kind](**{name: constant_value(_plain(v)) for name, v in CASES[kind].items()})
    np.testing.assert_allclose(got, want, rtol=2e-3 if "constexpr" in kind else 2e-5, atol=1e-6)
    assert np.shape(got) == np.shape(want)


def _plain(value: Any) -> Any:
    """Sub-byte integers come as plain ones from a weight file."""
    small = isinstance(value, np.ndarray) and value.dtype in (_INT4, _UINT4)
    return value.astype(np.int8) if small else value


def _by_coremltools(kind: str, arguments: dict[str, Any]) -> Any:
    with Function({}, opset_version=ct.target.iOS18) as function:
        Program().add_function("main", function)
        var = getattr(mb, kind)(**arguments)
        if var.val is not None:
            return var.val
        return var.op.materialized_val_inference()


def test_silu_and_exact_gelu_agree_with_torch() -> None:
    x = torch.from_numpy(X)
    np.testing.assert_allclose(OPERATORS["silu"](X), F.silu(x), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(OPERATORS["gelu"](X), F.gelu(x), rtol=2e-5, atol=1e-6)


def test_a_convolution_of_one_by_one_agrees_with_torch() -> None:
    x, weight, bias = _floats(1, 3, 1, 4), _floats(5, 3, 1, 1), _floats(5)
    want = F.conv2d(*(torch.from_numpy(a) for a in (x, weight, bias)))
    np.testing.assert_allclose(OPERATORS["conv"](x, weight, bias), want, rtol=2e-5, atol=1e-6)


def test_split_gives_all_parts() -> None:
    parts = OPERATORS["split"](X, np.int32(2), split_sizes=np.int32([1, 3]))
    assert [part.shape for part in parts] == [(2, 3, 1), (2, 3, 3)]
    np.testing.assert_array_equal(np.concatenate(parts, 2), X)


def test_sigmoid_is_finite_far_from_zero() -> None:
    got = OPERATORS["sigmoid"](np.float32([-1e4, 1e4]))
    assert got.tolist() == [0.0, 1.0]
    assert math.isfinite(float(OPERATORS["silu"](np.float32([-1e4]))[0]))


def test_every_operator_is_tested() -> None:
    assert OPERATORS.keys() - CASES.keys() == {"silu", "conv", "split"}
