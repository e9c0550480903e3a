"""The compression of a program's weights: a graph pass of coremltools.

Importing this module registers the pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Operation, Var, types
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
from coremltools.converters.mil.mil.passes.helper import block_context_manager
from coremltools.converters.mil.mil.passes.pass_registry import register_pass

from onekv.export.targets.coreml import rounding
from onekv.export.targets.coreml.options import CoreMLOptions, Weights

_PASS = "onekv::compress_weights"
# Operators and the input that is a weight.
_USES = {("linear", "weight"), ("conv", "weight"), ("gather", "x")}


def pipeline(options: CoreMLOptions) -> Any:
    """coremltools' default passes, and the compression that the options ask for."""
    passes = ct.PassPipeline.DEFAULT
    if options.weights is not Weights.FP16:
        passes.append_pass(_PASS)
        passes.set_options(_PASS, {"scheme": options.scheme})
    return passes


@register_pass(namespace="onekv")
class compress_weights(AbstractGraphPass):  # type: ignore[misc]  # noqa: N801, coremltools' form of a name
    """Replace matrices of linear layers, convolutions and embeddings by constant expressions."""

    scheme = "int8"

    def apply(self, prog: Any) -> None:
        for function in prog.functions.values():
            self._compress(function)

    @block_context_manager  # type: ignore[untyped-decorator]
    def _compress(self, block: Any) -> None:
        for const in list(_matrices(block)):
            block.replace_uses_of_var_after_op(
                anchor_op=const,
                old_var=const.outputs[0],
                new_var=_constant_expression(const, self.scheme),
                no_check_var_types=True,
            )
            block.remove_ops([const])


def _matrices(block: Any) -> Iterator[Operation]:
    for op in block.operations:
        if op.op_type == "const" and _is_weight(op.outputs[0]):
            yield op


def _is_weight(var: Var) -> bool:
    """A matrix, by its size and by the operators that read it.

    Rows of positions and of rotary tables are read by `gather` alone, as token embeddings
    with a head of their own are: the name tells those apart.
    """
    if not isinstance(var.val, np.ndarray) or var.val.size < rounding.SMALLEST:
        return False
    uses = {use.op_type for use in var.child_ops}
    if "embed_positions" in var.name or var.val.dtype != np.float16 or not uses:
        return False
    return uses <= {kind for kind, _ in _USES} and all(
        any(use.op_type == kind and use.inputs.get(name) is var for kind, name in _USES)
        for use in var.child_ops
    )


def _constant_expression(const: Operation, scheme: str) -> Var:
    value = const.outputs[0].val
    matrix = torch.from_numpy(np.ascontiguousarray(value.reshape(value.shape[0], -1)))
    name, spatial = f"{const.outputs[0].name}_{scheme}", (1,) * (value.ndim - 2)
    form = rounding.rounded(matrix, scheme)
    if isinstance(form, rounding.Palette):
        return mb.constexpr_lut_to_dense(
            indices=form.index.reshape(value.shape).astype(_sub_byte(types.uint4)),
            lut=form.table.reshape(len(form.table), 1, *spatial, 16, 1),
            before_op=const,
            name=name,
        )
    data = form.data.reshape(value.shape)
    return mb.constexpr_blockwise_shift_scale(
        data=data if form.bits == 8 else data.astype(_sub_byte(types.int4)),
        scale=form.scale.reshape(*form.scale.shape, *spatial),
        before_op=const,
        name=name,
    )


def _sub_byte(kind: Any) -> Any:
    return types.nptype_from_builtin(kind)
