"""Greedy tokens of an exported or source model, as a program: PROGRAM KIND FOLDER COUNT PROMPT.

KIND is `transformers` (the source) or `optimum` (an ONNX folder that optimum wrote). It runs in
a peer's environment too, so it imports nothing of onekv. Prints a JSON list of token ids.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(kind: str, folder: str, count: int, prompt: list[int]) -> list[int]:
    """Token ids that follow `prompt`, at most `count`."""
    import torch

    ids = torch.tensor([prompt])
    out = _model(kind, folder).generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count
    )
    tokens: list[int] = out[0, ids.shape[1] :].tolist()
    return tokens


def _model(kind: str, folder: str) -> Any:
    if kind == "optimum":
        from optimum.onnxruntime import ORTModelForCausalLM

        return ORTModelForCausalLM.from_pretrained(folder)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(Path(folder))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))))
