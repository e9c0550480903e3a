"""A decoder of one layer from ExecuTorch's own operators, exported in a second."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, CONTEXT, LONGEST_STEP = 50, 32, 64, 16


class Tiny(nn.Module):
    """Attention over one cached tensor, written in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.query, self.row = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.register_buffer("cache", torch.zeros(CONTEXT, WIDTH))

    def forward(self, tokens: Tensor, input_pos: Tensor) -> Tensor:
        """tokens int64 [1, S], input_pos int64 [1]; logits [1, S, VOCABULARY]."""
        cache = self.get_buffer("cache")
        x = self.embed(tokens)[0]
        places = input_pos + torch.arange(x.shape[0])
        cache.index_copy_(0, places, self.row(x))
        scores = self.query(x) @ cache.T
        hidden = torch.arange(CONTEXT)[None] > places[:, None]
        weights = scores.masked_fill(hidden, -1e9).softmax(-1)
        logits: Tensor = self.head(x + weights @ cache)[None]
        return logits


@torch.no_grad()
def greedy(prompt: Sequence[int], count: int) -> list[int]:
    """The module's own greedy continuation."""
    module = Tiny().eval()
    logits = module(torch.tensor([list(prompt)]), torch.tensor([0]))
    tokens = [int(logits[0, -1].argmax())]
    while len(tokens) < count:
        position = len(prompt) + len(tokens) - 1
        logits = module(torch.tensor([tokens[-1:]]), torch.tensor([position]))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def write_program(path: Path, module: nn.Module | None = None) -> Path:
    """Lower a module of this signature, the linear layers to XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    step = torch.export.Dim("step", min=1, max=LONGEST_STEP)
    example = (torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    methods = {
        "get_max_seq_len": LONGEST_STEP,
        "get_max_context_len": CONTEXT,
        "get_eos_ids": [2],
        "use_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            (module or Tiny()).eval(), example, dynamic_shapes=({1: step}, None), strict=True
        )
        edge = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods=methods
        )
        planning = MemoryPlanningPass(share_mutable_buffers=True)
        program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
    path.write_bytes(program.buffer)
    return path
