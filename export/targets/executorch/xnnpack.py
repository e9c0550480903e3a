"""XNNPACK's partitioner without what our graphs do not need: most of the time of an export."""

from __future__ import annotations

from collections.abc import Callable

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

# The one specification that XNNPACK's `preprocess` looks for: it runs one pass over each delegate
# instead of seventeen, each of which traces the delegate again on fake tensors. The sixteen others
# rewrite convolutions, pooling, batch norms and activations that decoders do not have.
_FEW_PASSES = CompileSpec("dqlinear_partitioner", b"")


class Partitioner(XnnpackPartitioner):  # type: ignore[misc]
    """One partitioner for all precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.delegation_spec = DelegationSpec(XnnpackBackend.__name__, [_FEW_PASSES])

    def ops_to_not_decompose(
        self, ep: ExportedProgram
    ) -> tuple[list[OpOverload], Callable[[Node], bool] | None]:
        """All operators that XNNPACK knows, without a look at each call.

        With a filter, the whole program is decomposed twice more to let single calls through.
        """
        kept, _ = super().ops_to_not_decompose(ep)
        return kept, None
