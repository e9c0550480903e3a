"""The source model as a session, so that it is measured by the code that measures bundles."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from onekv.export.model.cache import OneTensorCache, new_caches
from onekv.export.model.decoder import Decoder
from onekv.quantize.activations import disturbed
from onekv.runtime.rows import RowFormat
from onekv.runtime.sessions import Counted, Logits, check_room


class DecoderSession(Counted):
    """Implements `Session` on a decoder in PyTorch.

    `form` and `parts` say how the cache stores a row, so that rounding it is part of the result.
    """

    def __init__(
        self, decoder: Decoder, context: int, form: RowFormat = RowFormat.FP32, parts: int = 1
    ) -> None:
        super().__init__(context)
        self._decoder = decoder
        self._caches = new_caches(decoder.spec, context, form, parts=parts)

    @property
    def cache_bytes(self) -> int:
        return sum(
            tensor.nbytes
            for cache in self._caches
            for tensor in (
                (cache.rows,) if isinstance(cache, OneTensorCache) else (cache.keys, cache.values)
            )
        )

    def disturbed(self) -> AbstractContextManager[None]:
        """Meanwhile, sums come out as if they had been added in another order."""
        return disturbed(self._decoder)

    def step(self, tokens: Sequence[int]) -> Logits:
        check_room(self, len(tokens))
        ids, pos = torch.tensor([list(tokens)]), torch.tensor([self._position])
        with torch.inference_mode():
            logits = self._decoder(ids, pos, self._caches)[0].float()
        self._position += len(tokens)
        result: Logits = logits.numpy()
        return result
