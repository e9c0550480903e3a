"""A traced program to a `.pte`: delegates, one arena per role, the runners' metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from executorch.exir import (
    EdgeCompileConfig,
    ExecutorchBackendConfig,
    to_edge_transform_and_lower,
)
from executorch.exir.passes import MemoryPlanningPass
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node


def trace(module: nn.Module, prefill: int) -> ExportedProgram:
    """Trace tokens [1, S] and pos [1] for every S from 1 to `prefill`."""
    # An S of 1 would be taken for a constant.
    tokens = torch.zeros(1, min(prefill, 3), dtype=torch.int64)
    new = Dim("tokens", min=1, max=prefill)
    with torch.no_grad():
        program = torch.export.export(
            module,
            (tokens, torch.zeros(1, dtype=torch.int64)),
            dynamic_shapes=({1: new}, None),
            strict=False,
        )
    _merge_tables(program.graph_module)
    _infer_tokens(program.graph_module)
    return program


def _merge_tables(module: GraphModule) -> None:
    """Keep one of the equal concatenations that every layer makes of the rotary tables."""
    kept: dict[object, Node] = {}
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.cat.default:
            first = kept.setdefault((tuple(node.args[0]), *node.args[1:]), node)
            if first is not node:
                node.replace_all_uses_with(first)
                module.graph.erase_node(node)
    module.recompile()


def _infer_tokens(module: GraphModule) -> None:
    """Write the one free extent of every view as -1, the form that XNNPACK takes."""
    views = (torch.ops.aten.view.default, torch.ops.aten.reshape.default)
    for node in module.graph.nodes:
        if node.target in views:
            shape = node.meta["val"].shape
            extents = [extent if isinstance(extent, int) else -1 for extent in shape]
            if extents.count(-1) <= 1:
                node.args = (node.args[0], extents)
    module.recompile()


def write_program(
    program: ExportedProgram, partitioner: Any, metadata: dict[str, Any], path: Path
) -> None:
    """Delegate what the partitioner takes, plan memory, and write the file.

    Mutable buffers, which are the caches, get an arena of their own.
    """
    edge = to_edge_transform_and_lower(
        program,
        partitioner=[partitioner],
        constant_methods=metadata,
        compile_config=EdgeCompileConfig(_skip_dim_order=True),
    )
    made = edge.to_executorch(
        ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True),
            do_quant_fusion_and_const_prop=True,
            emit_mutable_buffer_names=True,
        )
    )
    with path.open("wb") as file:
        made.write_to_file(file)
