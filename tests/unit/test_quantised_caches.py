"""Caches of int8 and int4 rows in the reference: stored as records, read as rounded rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onekv.export.model.session import DecoderSession
from onekv.runtime.reference import attend, attend_kv
from onekv.runtime.row_codec import as_rows, as_stored
from onekv.runtime.rows import RowFormat, record_layout
from tests.specs import LLAMA, tiny_decoder, token_ids

BATCH, KV_HEADS, LENGTH, DIM = 2, 2, 12, 64
FORMATS = (RowFormat.INT8, RowFormat.INT4)
# Half a step of the largest element of a row, of 127 and 7 levels.
HALF_STEP = {RowFormat.INT8: 0.51 / 127, RowFormat.INT4: 0.51 / 7}
quantised = pytest.mark.parametrize(
    ("form", "parts"), [(form, parts) for form in FORMATS for parts in (1, 2)]
)


def empty(form: RowFormat, parts: int) -> Tensor:
    last = parts * form.last_dim(DIM, parts)
    return torch.zeros(BATCH, KV_HEADS, LENGTH, last, dtype=torch.uint8)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@quantised
def test_rows_come_back_within_the_formats_rounding(form: RowFormat, parts: int) -> None:
    rows, cache = drawn(0, BATCH, KV_HEADS, LENGTH, DIM), empty(form, parts)
    error = as_rows(as_stored(rows, cache), DIM, torch.float32) - rows
    assert error.abs().amax(-1).le(HALF_STEP[form] * rows.abs().amax(-1)).all()
    assert error.abs().max() > 0


@quantised
def test_attention_over_records_is_attention_over_the_rounded_rows(
    form: RowFormat, parts: int
) -> None:
    cache, plain = empty(form, parts), torch.zeros(BATCH, KV_HEADS, LENGTH, DIM)
    angles = drawn(1, LENGTH, DIM // 2)
    for start, new in ((0, 5), (5, 1), (6, 3)):
        q, c = drawn(start, BATCH, new, 4, DIM), drawn(start + 50, BATCH, new, KV_HEADS, DIM)
        rounded = as_rows(as_stored(c, cache), DIM, torch.float32)
        tables = (torch.tensor([start]), angles.cos(), angles.sin())
        got = attend(q, c, cache, *tables, scale=0.2)
        torch.testing.assert_close(got, attend(q, rounded, plain, *tables, scale=0.2))


@quantised
def test_two_tensors_are_rounded_each_by_itself(form: RowFormat, parts: int) -> None:
    caches = empty(form, parts), empty(form, parts)
    plain = [torch.zeros(BATCH, KV_HEADS, LENGTH, DIM) for _ in caches]
    q = drawn(1, BATCH, 7, 4, DIM)
    rows = [drawn(seed, BATCH, 7, KV_HEADS, DIM) for seed in (2, 3)]
    rounded = [as_rows(as_stored(part, caches[0]), DIM, torch.float32) for part in rows]
    pos = torch.tensor([0])
    got = attend_kv(q, *rows, *caches, pos, scale=0.2)
    torch.testing.assert_close(got, attend_kv(q, *rounded, *plain, pos, scale=0.2))


def test_a_layout_is_known_by_its_bytes() -> None:
    for dim in range(16, 520, 16):
        for form in FORMATS:
            for parts in (1, 2):
                found, halves = record_layout(parts * form.last_dim(dim, parts), dim)
                assert found is form
                same_bytes = form.row_bytes(dim, 1) == form.row_bytes(dim, 2)
                assert halves == (1 if same_bytes else parts)


def test_bytes_of_no_format_are_refused() -> None:
    q = c = drawn(0, 1, 1, 2, DIM)
    cache = torch.zeros(1, 2, 4, DIM + 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="no row format stores head_dim 64 in 67 bytes"):
        attend(q, c, cache, torch.tensor([0]))
    assert not cache.any()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["llama Q-GQA-2", "llama GQA-2"])
def test_a_session_with_rounded_rows_stays_near_the_model(name: str, form: RowFormat) -> None:
    spec = LLAMA[name]
    tokens = token_ids(spec, 12)[0].tolist()
    decoder = tiny_decoder(spec)
    exact, rounded = DecoderSession(decoder, 16), DecoderSession(decoder, 16, form)
    want, got = exact.step(tokens), rounded.step(tokens)
    error = float(((got - want) ** 2).sum() ** 0.5 / (want**2).sum() ** 0.5)
    assert 0 < error < 4 * HALF_STEP[form]
    row_bytes = form.row_bytes(spec.head_dim) * spec.kv_heads * spec.sharing.cached_tensors
    assert rounded.cache_bytes == 16 * spec.layers * row_bytes
