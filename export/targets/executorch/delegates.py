"""Which delegate a profile takes, and the form of the cache that it can keep."""

from __future__ import annotations

from typing import Any

import torch

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Ops, Profile
from onekv.export.targets.executorch.decomposed import (
    DecomposedCaches,
    append_by_index,
    append_by_update,
)
from onekv.export.targets.executorch.graph import Caches, OperatorCaches
from onekv.runtime.rows import RowFormat


def partitioner(profile: Profile) -> Any:
    """One partitioner for all precisions: several would split the graph into more delegates."""
    if profile is Profile.GPU:
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return VulkanPartitioner({"require_dynamic_shapes": True})
    if profile is Profile.APPLE:
        return _coreml_partitioner()
    from onekv.export.targets.executorch.xnnpack import Partitioner

    return Partitioner()


def caches(spec: ModelSpec, options: ExportOptions) -> Caches:
    """The cache in the form that the profile's delegate, or our kernel, reads."""
    if options.ops is Ops.ONEKV:
        return OperatorCaches(spec, options.context, RowFormat(options.cache))
    if options.profile is Profile.CPU:
        from onekv.export.targets.executorch.stock import StockCaches

        return StockCaches(spec, options.context, options.cache)
    if options.profile is Profile.GPU:
        return DecomposedCaches(spec, options.context, torch.float32, append_by_update, (1,))
    return DecomposedCaches(spec, options.context, torch.float32, append_by_index)


def _coreml_partitioner() -> Any:
    import coremltools as ct
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    return CoreMLPartitioner(
        compile_specs=CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT16
        ),
        # The cache becomes Core ML's own state: otherwise it is copied in every step.
        take_over_mutable_buffer=True,
    )
