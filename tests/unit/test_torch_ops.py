"""The operators as torch sees them: forms that agree, and one node per layer in an export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onekv.export.model.cache import OneTensorCache, TwoTensorCache, new_caches
from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from onekv.runtime import reference
from onekv.runtime.adapters import torch_ops
from tests.specs import LLAMA, tiny_decoder, token_ids

Arguments = tuple[Any, ...]


def attend_arguments(new: int = 3, dtype: torch.dtype = torch.float32, **changes: Any) -> Arguments:
    """Positional arguments of `attend`, with every option in use."""
    angles = torch.randn(8, 4)
    arguments = {
        "q": torch.randn(2, new, 4, 8, dtype=dtype),
        "c": torch.randn(2, new, 2, 8, dtype=dtype),
        "cache": torch.randn(2, 2, 8, 8, dtype=dtype),
        "pos": torch.tensor([2]),
        "cos": angles.cos(),
        "sin": angles.sin(),
        "key_gain": torch.randn(8),
        "scale": 0.4,
        "window": 4,
    }
    return tuple((arguments | changes).values())


def attend_kv_arguments(new: int = 3, dtype: torch.dtype = torch.float32) -> Arguments:
    q, k, cache = attend_arguments(new, dtype)[:3]
    return q, k, torch.randn_like(k), cache, torch.randn_like(cache), torch.tensor([2]), 0.4, 4


def copies(arguments: Arguments) -> Arguments:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)


OPERATORS = [
    pytest.param(torch_ops.attend, reference.attend, attend_arguments, id="attend"),
    pytest.param(torch_ops.attend_kv, reference.attend_kv, attend_kv_arguments, id="attend_kv"),
]


@pytest.mark.parametrize(("operator", "definition", "arguments"), OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("new", [1, 3])
def test_every_form_gives_the_same_output_and_cache(
    operator: Any,
    definition: Callable[..., Tensor],
    arguments: Callable[..., Arguments],
    dtype: torch.dtype,
    new: int,
) -> None:
    given = arguments(new, dtype)
    defined, functional, into = copies(given), copies(given), copies(given)
    expected = definition(*defined)
    out = torch.empty_like(given[0])
    assert torch.equal(operator(*functional), expected)
    assert operator.out(*into, out=out) is out
    assert torch.equal(out, expected)
    for one, two, three in zip(defined, functional, into):
        if isinstance(one, Tensor):
            assert torch.equal(one, two)
            assert torch.equal(one, three)


@pytest.mark.parametrize(("operator", "definition", "arguments"), OPERATORS)
def test_the_meta_forms_know_the_output_without_computing_it(
    operator: Any, definition: Callable[..., Tensor], arguments: Callable[..., Arguments]
) -> None:
    given = arguments()
    meta = tuple(value.to("meta") if isinstance(value, Tensor) else value for value in given)
    expected = definition(*given)
    out = operator(*meta)
    assert out.is_meta
    assert (out.shape, out.dtype, out.stride()) == (
        expected.shape,
        expected.dtype,
        expected.stride(),
    )
    into = torch.empty(expected.shape, device="meta")
    assert operator.out(*meta, out=into) is into


@pytest.mark.parametrize(("operator", "definition", "arguments"), OPERATORS)
@pytest.mark.parametrize("new", [1, 3])
def test_the_schema_tells_the_truth_to_torch(
    operator: Any, definition: Callable[..., Tensor], arguments: Callable[..., Arguments], new: int
) -> None:
    """What is written to, what the shapes are, and that tracing gives the same results."""
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator.default, arguments(new), test_utils=tests)
    if new > 1:
        torch.library.opcheck(
            operator.default, arguments(new), test_utils="test_aot_dispatch_static"
        )


def test_the_meta_form_matches_for_queries_of_any_memory_layout() -> None:
    q = torch.randn(2, 4, 3, 8).transpose(1, 2)
    torch.library.opcheck(
        torch_ops.attend.default, attend_arguments(q=q), test_utils="test_faketensor"
    )


def test_an_overflow_reaches_the_caller_as_the_definitions_error() -> None:
    given = attend_arguments(pos=torch.tensor([7]), window=0)
    before = given[2].clone()
    with pytest.raises(reference.CacheOverflowError):
        torch_ops.attend(*given)
    with pytest.raises(reference.CacheOverflowError):
        torch_ops.attend.out(*given, out=torch.empty_like(given[0]))
    assert torch.equal(given[2], before)


class WithCaches(nn.Module):
    """The decoder as it is traced: its caches are inputs."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.one_tensor = decoder.spec.sharing.one_tensor

    def forward(self, tokens: Tensor, pos: Tensor, tensors: list[Tensor]) -> Tensor:
        caches = (
            [OneTensorCache(tensor) for tensor in tensors]
            if self.one_tensor
            else [TwoTensorCache(*pair) for pair in zip(tensors[::2], tensors[1::2])]
        )
        return self.decoder(tokens, pos, caches)


def cache_tensors(spec: ModelSpec, length: int = 32) -> list[Tensor]:
    return [tensor for cache in new_caches(spec, length) for tensor in vars(cache).values()]


EXPORTED = [
    pytest.param("llama Q-GQA-2", "attend", id="one tensor"),
    pytest.param("llama GQA-2", "attend_kv", id="two tensors"),
]


@pytest.mark.parametrize(("name", "operator"), EXPORTED)
def test_export_keeps_one_node_per_layer_for_any_length_and_position(
    name: str, operator: str
) -> None:
    spec = LLAMA[name]
    module = WithCaches(tiny_decoder(spec))
    example = (token_ids(spec, 4), torch.tensor([3]), cache_tensors(spec))
    length = torch.export.Dim("new", min=1, max=16)
    program = torch.export.export(
        module, example, dynamic_shapes=({1: length}, None, [None] * len(example[2]))
    )

    ours = [str(node.target) for node in program.graph.nodes if "onekv" in str(node.target)]
    assert Counter(ours) == {f"onekv.{operator}.default": spec.layers}
    lowered = program.run_decompositions({})
    written = set(lowered.graph_signature.user_inputs_to_mutate.values())
    assert written == {f"tensors_{index}" for index in range(len(example[2]))}
    wrapped = [node.args[0] for node in lowered.graph.nodes if "functionalized" in str(node.target)]
    assert [str(operator) for operator in wrapped] == ours

    tokens, pos = token_ids(spec, 20, seed=1), 0
    exported_caches, eager_caches = cache_tensors(spec), cache_tensors(spec)
    run = program.module()
    for part in tokens.split((9, 6, 1, 1, 3), dim=1):
        position = torch.tensor([pos])
        exported = run(part, position, exported_caches)
        torch.testing.assert_close(exported, module(part, position, eager_caches))
        pos += part.shape[1]
    for one, two in zip(exported_caches, eager_caches):
        torch.testing.assert_close(one, two)


def test_rotate_computes_the_definition_in_both_forms() -> None:
    x, cos, sin = torch.randn(1, 3, 2, 8), torch.randn(3, 1, 4), torch.randn(3, 1, 4)
    expected = reference.rotate(x, cos, sin)
    assert torch.equal(torch_ops.rotate(x, cos, sin), expected)
    out = torch.empty_like(x)
    torch.ops.onekv.rotate.out(x, cos, sin, out=out)
    assert torch.equal(out, expected)
