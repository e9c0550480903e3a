"""Constant methods: what ExecuTorch's stock runners ask a program."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from onekv.export.options import Ops, Profile
from onekv.export.targets import LowerRequest
from onekv.runtime.executorch_session import LIBRARIES_METHOD, VERSION_METHOD


def metadata(request: LowerRequest, prefill: int) -> dict[str, Any]:
    """Method names and what they return.

    get_max_seq_len is the longest call; runners split a longer prompt.
    """
    methods: dict[str, Any] = {
        "get_max_seq_len": prefill,
        "get_max_context_len": request.options.context,
        "get_vocab_size": request.spec.vocab_size,
        "get_n_layers": request.spec.layers,
        "enable_dynamic_shape": True,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        VERSION_METHOD: version("executorch"),
        LIBRARIES_METHOD: " ".join(libraries(request)),
    }
    if request.eos_token_ids:
        methods["get_eos_ids"] = list(request.eos_token_ids)
    if request.bos_token_id is not None:
        methods["get_bos_id"] = request.bos_token_id
    return methods


def libraries(request: LowerRequest) -> list[str]:
    """Libraries of operators that a program calls outside of delegates."""
    options = request.options
    names = ["onekv"] if options.ops is Ops.ONEKV else []
    if options.ops is Ops.STOCK and options.profile is Profile.CPU:
        names.append("llama")
    if "embed_tokens.weight" in request.quantised:
        names.append("quantized")
    return names
