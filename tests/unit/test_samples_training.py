"""How the samples are made: the split, the batches, and runs that survive an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.decoder import Decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.quantize.quality import perplexity
from samples.corpus import HELD_OUT, clean, load_corpus, split
from samples.folders import write_paper, write_tokenizer
from samples.recipe import CONFIGURATIONS, WITHOUT_ROPE, Recipe
from samples.table import cache_kb_per_token, results_table
from samples.training import batch_at, learning_rate, new_decoder, train
from samples.vocabulary import encode_works, train_tokenizer

TOY_TEXT = "the cat sat on the mat and the hat sat on the cat. " * 40
TOY_RECIPE = Recipe(tokens=9 * 2 * 16, batch=2, context=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def toy_stream() -> torch.Tensor:
    return torch.tensor(encode_works(train_tokenizer([TOY_TEXT], 280), [TOY_TEXT]))


@pytest.fixture
def toy_spec() -> ModelSpec:
    return ModelSpec(280, 2, 16, 2, 1, 8, 24, 32, Sharing.K_IS_V)


def works_of(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).write_text(f"words of {name}\n")


def test_no_work_is_in_both_halves() -> None:
    corpus = split({name: name for name in ("hamlet", *HELD_OUT, "lear")})
    assert set(corpus.training) == {"hamlet", "lear"}
    assert set(corpus.validation) == set(HELD_OUT)


def test_folio_editions_of_held_out_plays_stay_out_of_the_training_text(tmp_path: Path) -> None:
    modern = [f"{name}_gut.txt" for name in (*HELD_OUT, "hamlet")]
    works_of(tmp_path, [*modern, "twelfe-night_gut_f.txt", "macbeth_gut_f.txt", "metadata.txt"])
    corpus = load_corpus(tmp_path)
    assert corpus.training == {"hamlet": "words of hamlet_gut.txt\n"}


def test_a_folder_without_the_held_out_plays_is_refused(tmp_path: Path) -> None:
    works_of(tmp_path, ["hamlet_gut.txt", "john_gut.txt"])
    with pytest.raises(FileNotFoundError, match="macbeth, twelfth_night"):
        load_corpus(tmp_path)


def test_clean_text_keeps_words_and_lines() -> None:
    assert clean("ACT  I. \r\n\n\n\n  Enter\tLear.  \n\n") == "ACT I.\n\nEnter Lear.\n"


def test_every_work_starts_with_the_end_of_text() -> None:
    tokenizer = train_tokenizer(["ab ab"], 260)
    stream = encode_works(tokenizer, ["ab", "a"])
    assert [i for i, token in enumerate(stream) if token == 0] == [0, len(stream) - 2]


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, toy_spec: ModelSpec, toy_stream: torch.Tensor
) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    def quiet(line: str) -> None:
        pass

    whole = train(toy_spec, TOY_RECIPE, toy_stream, tmp_path / "whole.pt", quiet)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(toy_spec, TOY_RECIPE, toy_stream, tmp_path / "cut.pt", interrupt, 4)
    resumed = train(toy_spec, TOY_RECIPE, toy_stream, tmp_path / "cut.pt", quiet, 4)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, toy_spec: ModelSpec, toy_stream: torch.Tensor
) -> None:
    train(toy_spec, TOY_RECIPE, toy_stream, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="belongs to another run"):
        train(toy_spec, replace(TOY_RECIPE, seed=1), toy_stream, tmp_path / "run.pt")


def test_training_lowers_the_perplexity(
    tmp_path: Path, toy_spec: ModelSpec, toy_stream: torch.Tensor
) -> None:
    def score(decoder: Decoder) -> float:
        return perplexity(DecoderSession(decoder, 32), toy_stream.tolist())

    recipe = replace(TOY_RECIPE, tokens=60 * 2 * 16, learning_rate=1e-2)
    trained = train(toy_spec, recipe, toy_stream, tmp_path / "run.pt")
    assert score(trained) < score(new_decoder(toy_spec, 0)) / 4


def test_batches_depend_on_seed_and_step_alone(toy_stream: torch.Tensor) -> None:
    batch = batch_at(toy_stream, TOY_RECIPE, 3)
    assert batch.shape == (2, 17)
    assert torch.equal(batch, batch_at(toy_stream, TOY_RECIPE, 3))
    assert not torch.equal(batch, batch_at(toy_stream, TOY_RECIPE, 4))
    assert not torch.equal(batch, batch_at(toy_stream, replace(TOY_RECIPE, seed=1), 3))


def test_learning_rate_rises_to_its_peak_and_falls_to_its_floor() -> None:
    recipe = Recipe(tokens=100 * 4 * 512, learning_rate=1.0, warmup=0.1, final_rate=0.05)
    rates = [learning_rate(recipe, step) for step in range(recipe.steps + 1)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.05)


def test_the_wide_configuration_matches_the_twin_in_parameters() -> None:
    def count(name: str) -> int:
        return sum(p.numel() for p in new_decoder(CONFIGURATIONS[name], 0).parameters())

    assert count("tiny") == 2_754_816
    assert abs(count("tiny-wide") - count("tiny-qkv")) / count("tiny-qkv") < 0.0005


def test_table_gives_the_spread_over_seeds() -> None:
    runs = [
        {"name": "tiny", "seed": s, "tokens": 5, "parameters": 9, "perplexity": p}
        for s, p in ((1, 12.0), (0, 10.0), (2, 14.0))
    ]
    row = results_table(runs).splitlines()[-1]
    assert (
        row == "| tiny | Q-GQA-2 | 9 | 1 | 5 | 10.00, 12.00, 14.00 | 12.00 | 10.00..14.00 | 2.00 |"
    )


def test_one_tensor_halves_the_cache() -> None:
    assert cache_kb_per_token("tiny-qkv") == 2.0
    assert cache_kb_per_token("tiny") == 1.0
    assert cache_kb_per_token("tiny-mqa") == 0.5


def test_a_model_without_rope_is_read_back_as_the_papers(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    write_tokenizer(tokenizer, train_tokenizer(["to be or not to be"], 300), 512)
    decoder = new_decoder(WITHOUT_ROPE["tiny-paper"], seed=0)
    write_paper(tmp_path / "model", decoder, tokenizer)
    checkpoint = open_checkpoint(tmp_path / "model" / "model.pt")
    assert checkpoint.spec == decoder.spec
    read = checkpoint.load()
    for name, parameter in decoder.named_parameters():
        assert torch.equal(read[name], parameter), name
