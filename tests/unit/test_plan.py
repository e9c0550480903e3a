"""Memory from a specification alone: the paper's figures, exactly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions, Target
from onekv.export.plan import cache_per_token, compare_caches, parameters, plan_memory
from onekv.quantize.numbers import Number
from tests.specs import PAPER_SPEC, tiny_decoder

SMALL = replace(
    PAPER_SPEC,
    vocab_size=50304,
    layers=20,
    hidden_size=1024,
    heads=16,
    kv_heads=16,
    head_dim=64,
    ffn_size=4096,
    max_positions=2048,
)
LARGE = replace(
    SMALL, layers=22, hidden_size=2048, heads=32, kv_heads=32, ffn_size=8192, max_positions=32768
)

# KB per token at 16 bits for the 300M models (arXiv 2606.04032).
KILOBYTES = {
    (Sharing.QKV, 16): 80,
    (Sharing.K_IS_V, 16): 40,
    (Sharing.Q_IS_K, 16): 80,
    (Sharing.ALL, 16): 40,
    (Sharing.QKV, 4): 20,
    (Sharing.QKV, 1): 5,
    (Sharing.K_IS_V, 4): 10,
    (Sharing.K_IS_V, 1): 2.5,
}
# MiB at 32,768 tokens and 16 bits for the 1.2B models.
MEBIBYTES = {
    (Sharing.QKV, 32): 5632,
    (Sharing.K_IS_V, 32): 2816,
    (Sharing.QKV, 8): 1408,
    (Sharing.K_IS_V, 8): 704,
    (Sharing.QKV, 1): 176,
    (Sharing.K_IS_V, 1): 88,
}


@pytest.mark.parametrize(("variant", "kilobytes"), KILOBYTES.items())
def test_cache_per_token_is_the_papers(variant: tuple[Sharing, int], kilobytes: float) -> None:
    spec = replace(SMALL, sharing=variant[0], kv_heads=variant[1])
    assert cache_per_token(spec, Number.FP16) == kilobytes * 1024


@pytest.mark.parametrize(("variant", "mebibytes"), MEBIBYTES.items())
def test_cache_at_32768_tokens_is_the_papers(variant: tuple[Sharing, int], mebibytes: int) -> None:
    spec = replace(LARGE, sharing=variant[0], kv_heads=variant[1])
    options = ExportOptions(Target.ONNX, 32768, Number.FP16, Number.FP16)
    assert plan_memory(spec, options).cache == mebibytes * 2**20


def test_parameters_are_the_decoders(spec: ModelSpec) -> None:
    assert parameters(spec) == sum(p.numel() for p in tiny_decoder(spec).parameters())


def test_a_shared_model_is_set_beside_its_twin_with_three_projections() -> None:
    rows = compare_caches(replace(SMALL, sharing=Sharing.K_IS_V, kv_heads=4), 2048)
    assert [(row.variant, row.number) for row in rows] == [
        ("GQA-4", "fp32"),
        ("GQA-4", "fp16"),
        ("Q-GQA-4", "fp32"),
        ("Q-GQA-4", "fp16"),
    ]
    assert rows[0].total == 2 * rows[2].total == 20 * 2048 * 2048


def test_planning_and_help_import_no_torch() -> None:
    script = "import sys, onekv.cli, onekv.export.plan; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
