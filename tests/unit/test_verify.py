"""What verification measures, records, and refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onekv.errors import BundleError, UsageError
from onekv.export.bundle import describe_files, read_manifest, write_manifest
from onekv.export.golden import RECORD, load_golden
from onekv.export.reverify import verify_bundle
from onekv.export.verify import difference
from onekv.quantize.quality import perplexity, token_losses
from tests.builders.sample import write_sample
from tests.unit.test_generate import Counter

TEXT = "Now is the winter of our discontent made glorious summer by this sun of York. " * 8


@pytest.fixture
def bundle(sample_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_bundle, tmp_path / "bundle"))


def test_difference_is_zero_for_equal_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    found = difference(logits, logits)
    assert (found.relative_l2, found.max_abs, found.argmax_agreement, found.kl) == (0, 0, 1, 0)


def test_difference_is_what_the_formulas_say() -> None:
    want = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    got = np.log(np.array([[0.25, 0.5, 0.25]], np.float32))
    found = difference(got, want)
    assert found.kl == pytest.approx(0.5 * np.log(2) + 0.25 * np.log(0.5), rel=1e-6)
    assert found.max_abs == pytest.approx(np.log(2), rel=1e-6)
    assert found.relative_l2 == pytest.approx(np.log(2) * 2**0.5 / np.linalg.norm(want), rel=1e-6)
    assert found.argmax_agreement == 0


def test_a_bundle_is_verified_against_its_own_record(bundle: Path) -> None:
    parity = verify_bundle(bundle)
    assert parity.passed and parity.against == "logits recorded at export"
    assert read_manifest(bundle).parity == parity


def test_a_bundle_is_verified_against_its_source_and_a_text(
    bundle: Path, sample_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    parity = verify_bundle(bundle, sample_model, tmp_path / "text.txt")
    assert parity.passed and parity.against == "source model"
    assert parity.greedy_equal == parity.greedy_tokens
    assert parity.perplexity is not None and parity.perplexity.source is not None
    assert parity.perplexity.bundle == pytest.approx(parity.perplexity.source, rel=1e-4)


def test_another_model_is_not_taken_for_the_source(bundle: Path, tmp_path: Path) -> None:
    other = write_sample(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="is not the model"):
        verify_bundle(bundle, other)


def test_a_text_that_is_too_short_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Too short.")
    with pytest.raises(UsageError, match="too few"):
        verify_bundle(bundle, text=tmp_path / "text.txt")


def replace_record(bundle: Path, **arrays: np.ndarray) -> None:
    save_file(load_file(bundle / RECORD) | arrays, bundle / RECORD)
    manifest = read_manifest(bundle)
    write_manifest(bundle, manifest.model_copy(update={"files": describe_files(bundle)}))


def test_a_bundle_that_does_not_compute_its_record_fails_and_says_so(bundle: Path) -> None:
    golden = load_golden(bundle / RECORD)
    replace_record(bundle, logits=golden.logits * 1.001)
    parity = verify_bundle(bundle)
    assert not parity.passed
    assert any("relative L2" in reason for reason in parity.reasons)
    assert read_manifest(bundle).parity == parity


@pytest.mark.parametrize(
    "arrays",
    [
        {"prompt_length": np.array([10**6])},
        {"prompt_length": np.array([0])},
        {"positions": np.array([10**6] * 16)},
        {"positions": np.array([0, 1])},
        {"logits": np.zeros((16, 3), np.float32)},
        {"tokens": np.array([10**9] * 88)},
    ],
    ids=["long prompt", "no prompt", "far position", "few positions", "narrow", "odd tokens"],
)
def test_a_record_that_contradicts_itself_is_refused(
    bundle: Path, arrays: dict[str, np.ndarray]
) -> None:
    replace_record(bundle, **arrays)
    with pytest.raises(BundleError, match="contradicts"):
        verify_bundle(bundle)


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    losses = token_losses(np.zeros((7, 50), np.float32), [3] * 7)
    assert np.exp(losses.mean()) == pytest.approx(50)


def test_perplexity_scores_every_token_of_a_window_but_its_first() -> None:
    sure = np.log(np.exp(5.0) + 49) - 5
    tokens = [i % 50 for i in range(64)]
    assert perplexity(Counter(context=16), tokens) == pytest.approx(np.exp(sure))
    # With the order reversed every target is one of the 49 unlikely ones.
    unlikely = np.log(np.exp(5.0) + 49)
    assert perplexity(Counter(context=16), tokens[::-1]) == pytest.approx(np.exp(unlikely))
