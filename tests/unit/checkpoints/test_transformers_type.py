"""Our type inside transformers: loaded by name, with the logits and tokens of the decoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.decoder import Decoder
from onekv.export.model.huggingface import OnekvForCausalLM
from onekv.export.model.spec import ModelSpec
from tests.builders import folders
from tests.specs import LLAMA, PAPER, SPECS, tiny_decoder, token_ids

NEW = 12


def load(folder: Path, decoder: Decoder) -> OnekvForCausalLM:
    folders.write_onekv(folder, decoder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, OnekvForCausalLM)
    return model


def greedy(decoder: Decoder, tokens: Tensor, new: int = NEW) -> Tensor:
    """Greedy tokens without any cache: the decoder over the whole sequence again and again."""
    for _ in range(new):
        logits = decoder(tokens, torch.tensor([0]))[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_the_loaded_model_has_the_decoders_logits(spec: ModelSpec, tmp_path: Path) -> None:
    decoder = tiny_decoder(spec)
    model = load(tmp_path / "m", decoder)
    tokens = token_ids(spec, 20, batch=2)
    with torch.no_grad():
        expected = decoder(tokens, torch.tensor([0]))
        assert distance(model(tokens).logits, expected) < 1e-5
        assert distance(model(tokens, use_cache=False).logits, expected) < 1e-5
        assert distance(model(tokens, logits_to_keep=3).logits, expected[:, -3:]) < 1e-5


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_gives_the_decoders_greedy_tokens(
    spec: ModelSpec, use_cache: bool, tmp_path: Path
) -> None:
    decoder = tiny_decoder(spec)
    model = load(tmp_path / "m", decoder)
    tokens = token_ids(spec, 7, batch=2)
    found = model.generate(tokens, max_new_tokens=NEW, do_sample=False, use_cache=use_cache)
    assert torch.equal(found, greedy(decoder, tokens))


def test_left_padding_changes_nothing(spec: ModelSpec, tmp_path: Path) -> None:
    decoder = tiny_decoder(spec)
    model = load(tmp_path / "m", decoder)
    long, short = token_ids(spec, 9), token_ids(spec, 5, seed=1)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), short], dim=1)
    tokens = torch.cat([long, padded])
    mask = torch.ones_like(tokens)
    mask[1, :4] = 0
    found = model.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0
    )
    assert torch.equal(found[:1], greedy(decoder, long))
    assert torch.equal(found[1:, 4:], greedy(decoder, short))


def test_beam_search_is_the_same_with_and_without_a_cache(tmp_path: Path) -> None:
    model = load(tmp_path / "m", tiny_decoder(LLAMA["llama Q-GQA-2"]))
    tokens = token_ids(model.config.spec, 7)
    cached, plain = (
        model.generate(tokens, max_new_tokens=NEW, num_beams=3, do_sample=False, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_a_shared_row_is_cached_once(tmp_path: Path) -> None:
    model = load(tmp_path / "m", tiny_decoder(LLAMA["llama Q-GQA-2"]))
    cache = DynamicCache(config=model.config)
    model(token_ids(model.config.spec, 7), cache=cache, use_cache=True)
    assert cache.layers[0].keys.shape == (1, 2, 7, 16)
    assert cache.layers[0].values.numel() == 0


def test_the_loss_is_the_cross_entropy_of_the_next_token(tmp_path: Path) -> None:
    spec = PAPER["Q-MQA"]
    model = load(tmp_path / "m", tiny_decoder(spec))
    tokens = token_ids(spec, 20)
    output = model(tokens, labels=tokens)
    expected = torch.nn.functional.cross_entropy(output.logits[0, :-1], tokens[0, 1:])
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    output.loss.backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.norm() > 0


def test_a_mask_of_another_length_is_refused(tmp_path: Path) -> None:
    model = load(tmp_path / "m", tiny_decoder(PAPER["Q-MQA"]))
    with pytest.raises(ValueError, match=r"attention_mask has shape \[1, 6\], not \[1, 7\]"):
        model(token_ids(model.config.spec, 7), attention_mask=torch.ones(1, 6))


def test_what_transformers_saves_onekv_reads(spec: ModelSpec, tmp_path: Path) -> None:
    decoder = tiny_decoder(spec)
    load(tmp_path / "m", decoder).save_pretrained(tmp_path / "saved")
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert checkpoint.spec.variant == spec.variant
    for name, tensor in checkpoint.load().items():
        assert torch.equal(tensor, decoder.state_dict()[name]), name


def test_half_precision_keeps_its_rotary_tables(tmp_path: Path) -> None:
    decoder = tiny_decoder(LLAMA["llama Q-GQA-2"])
    folders.write_onekv(tmp_path / "m", decoder)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float16)
    assert model.dtype == torch.float16
    assert torch.equal(model.model.cos, decoder.cos)
    tokens = token_ids(decoder.spec, 20)
    with torch.no_grad():
        assert distance(model(tokens).logits, decoder(tokens, torch.tensor([0]))) < 5e-3


def test_every_tiny_model_is_known_by_name(tmp_path: Path) -> None:
    for index, spec in enumerate(SPECS.values()):
        folder = folders.write_onekv(tmp_path / str(index), tiny_decoder(spec))
        assert AutoConfig.from_pretrained(folder).spec.variant == spec.variant


ORDERS = {
    "onekv first": "import onekv; import transformers",
    "transformers first": "from transformers import LlamaForCausalLM, AutoModel; import onekv",
}
_LOAD = """
from transformers import AutoConfig, AutoModelForCausalLM
import sys
print(type(AutoConfig.from_pretrained(sys.argv[1])).__name__)
print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__)
"""


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_registration_works_in_any_order_of_import(order: str, run_folder: Path) -> None:
    code = f"{order}\n{_LOAD}"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(run_folder)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["OnekvConfig", "OnekvForCausalLM"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registered") / "m"
    return folders.write_onekv(folder, tiny_decoder(LLAMA["llama Q-MQA"]))


def test_importing_onekv_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, onekv; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
