"""`genai_config.json`: what onnxruntime-genai needs to run the bundle as it is."""

from __future__ import annotations

import json
from pathlib import Path

from onekv.export.targets import LowerRequest
from onekv.export.targets.onnx.libraries import library_name
from onekv.export.targets.onnx.trace import cache_width
from onekv.runtime.rows import RowFormat


def write_genai_config(request: LowerRequest, folder: Path, file: str) -> None:
    """Describe the graph to onnxruntime-genai.

    It knows a key and a value per layer. A shared row's two halves take their places, so that
    `head_size` is half of head_dim and exactly one row is kept.
    """
    spec, context = request.spec, request.options.context
    stop = list(request.eos_token_ids)
    first = request.bos_token_id if request.bos_token_id is not None else (stop or [0])[0]
    config = {
        "model": {
            # Names the family of graphs (one decoder, key and value inputs), not the weights.
            "type": "llama",
            "bos_token_id": first,
            "eos_token_id": stop if len(stop) != 1 else stop[0],
            "pad_token_id": (stop or [0])[0],
            "vocab_size": spec.vocab_size,
            "context_length": context,
            "decoder": {
                "filename": file,
                "session_options": _session_options(request, folder),
                "hidden_size": spec.hidden_size,
                "head_size": cache_width(spec, RowFormat(request.options.cache)),
                "num_attention_heads": spec.heads,
                "num_key_value_heads": spec.kv_heads,
                "num_hidden_layers": spec.layers,
                "inputs": {
                    "input_ids": "input_ids",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": context,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
    (folder / "genai_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _session_options(request: LowerRequest, folder: Path) -> dict[str, object]:
    options: dict[str, object] = {
        "log_id": "onnxruntime-genai",
        # As onekv's own sessions: an arena never gives back what the largest prefill took.
        "enable_cpu_mem_arena": False,
        "enable_mem_pattern": False,
        "provider_options": [],
    }
    library = library_name(request.options.platforms, folder)
    return options if library is None else {**options, "custom_ops_library": library}
