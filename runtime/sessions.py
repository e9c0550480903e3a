"""What every runtime offers to the code above it: tokens in, logits out, a position that moves."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onekv.errors import OnekvError, UsageError

Logits = NDArray[np.float32]

STOCK = "stock operators"
"""Attention in the runtime's own operators, without onekv's kernel."""

_ENVIRONMENT = "ONEKV_OPS"


class ContextFullError(OnekvError):
    """More tokens than the bundle's context holds. The cache is left as it was."""

    def __init__(self, needed: int, context: int) -> None:
        super().__init__(
            f"{needed} tokens do not fit into this bundle's context of {context}",
            "Shorten the prompt, or export again with a larger --context.",
        )


class Session(Protocol):
    """A loaded model with its cache."""

    @property
    def context(self) -> int:
        """The most tokens that the cache holds."""

    @property
    def position(self) -> int:
        """Tokens in the cache."""

    @property
    def kernel(self) -> bool:
        """Whether onekv's kernel computes attention."""

    @property
    def operators(self) -> str:
        """Who computes attention, for a person: onekv's kernel, or `STOCK` and why."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of all cache tensors at the full context."""

    def step(self, tokens: Sequence[int]) -> Logits:
        """Append tokens and give the logits after each: [len(tokens), vocab].

        Raises:
            ContextFullError: they do not fit; nothing was appended.
        """

    def reset(self) -> None:
        """Forget all tokens."""


class Counted:
    """The part of a session that only counts: the context, and the tokens in the cache.

    Attention is the runtime's own operators' work unless a session says otherwise.
    """

    def __init__(self, context: int) -> None:
        self._context, self._position = context, 0

    @property
    def context(self) -> int:
        return self._context

    @property
    def position(self) -> int:
        return self._position

    @property
    def kernel(self) -> bool:
        return False

    @property
    def operators(self) -> str:
        return STOCK

    def reset(self) -> None:
        self._position = 0


class FixedCalls(Counted, abc.ABC):
    """The part of a session whose calls take fixed numbers of tokens, `chunk` or `single`.

    Tokens go through full calls of the larger number, a remainder padded when the context has
    room for it, and through the smaller ones otherwise.
    """

    def __init__(self, context: int, chunk: int, single: int = 1) -> None:
        super().__init__(context)
        self._chunk, self._single = chunk, single

    @property
    @abc.abstractmethod
    def cache_bytes(self) -> int:
        """See `Session`."""

    @abc.abstractmethod
    def call(self, ids: NDArray[np.int64], count: int) -> Logits:
        """Compute ids [1, chunk or single], `count` of them tokens: logits [count, vocab]."""

    def step(self, tokens: Sequence[int]) -> Logits:
        check_room(self, len(tokens))
        ids = np.asarray(tokens, np.int64)
        rows = []
        while len(ids):
            fits = self._position + self._chunk <= self._context
            padded = np.zeros((1, self._chunk if fits and len(ids) > 1 else self._single), np.int64)
            taken = ids[: padded.shape[1]]
            padded[0, : len(taken)] = taken
            rows.append(self.call(padded, len(taken)))
            self._position += len(taken)
            ids = ids[len(taken) :]
        return np.concatenate(rows)


def check_room(session: Session, tokens: int) -> None:
    """Raise ContextFullError unless `tokens` more fit."""
    if session.position + tokens > session.context:
        raise ContextFullError(session.position + tokens, session.context)


def open_session(
    target: str, path: Path, context: int, kernel: bool | None = None, exact: bool = False
) -> Session:
    """The session of a bundle's target on the file that its runtime loads.

    `kernel` False leaves attention to stock operators where the file has both forms, True
    insists on onekv's kernel; None lets the environment's ONEKV_OPS (`stock` or `onekv`) or
    else what is installed decide. `exact` keeps activations in float where a runtime can be
    told to, though the file rounds them beside integer weights.

    Raises:
        OnekvError: the target's runtime is not installed, or refuses the file.
        UsageError: the environment's ONEKV_OPS is neither.
    """
    try:
        if target == "onnx":
            from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
            from onekv.runtime.onnx_static import is_static, open_static

            if is_static(path):
                _check_one_form(kernel, "NPU graphs")
                return open_static(path, context, exact)
            return OnnxSession(path, context, OnnxOptions(kernel=_wanted(kernel), exact=exact))
        _check_one_form(kernel, f"{target} bundles")
        if target == "coreml":
            from onekv.runtime.coreml_session import open_coreml

            return open_coreml(path, context)
        if target == "executorch":
            from onekv.runtime.executorch_session import ExecutorchSession

            return ExecutorchSession(path, context)
    except ImportError as error:
        raise OnekvError(
            f"the runtime for {target} bundles is not installed: no module {error.name}",
            f"Install it: pip install 'onekv[{target}]'",
        ) from error
    raise OnekvError(f"no runtime here executes {target} bundles")


def _check_one_form(kernel: bool | None, what: str) -> None:
    if kernel is not None:
        raise UsageError(f"{what} hold one form of attention", "Leave --ops out: export chose it.")


def _wanted(kernel: bool | None) -> bool | None:
    asked = os.environ.get(_ENVIRONMENT)
    if kernel is not None or not asked:
        return kernel
    if asked not in ("onekv", "stock"):
        raise UsageError(f"{_ENVIRONMENT}={asked}", "Set it to onekv or stock, or unset it.")
    return asked == "onekv"
