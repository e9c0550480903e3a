"""The authors' `.pt` files: every variant, every trap, and everything that can be wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onekv.errors import CheckpointError
from onekv.export.checkpoints import open_checkpoint, require_one_tensor
from onekv.export.model.spec import ModelSpec
from tests.builders import paper
from tests.specs import PAPER, tiny_decoder


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_every_variant_is_recognised_and_its_tensors_are_the_ones_saved(
    paper_variant: ModelSpec, prefix: str, tmp_path: Path
) -> None:
    decoder = tiny_decoder(paper_variant)
    path = paper.save(tmp_path / "checkpoint_step_7.pt", paper.checkpoint(decoder, prefix))

    checkpoint = open_checkpoint(path)

    assert checkpoint.spec == paper_variant
    assert (checkpoint.source, checkpoint.format) == ("checkpoint_step_7.pt", "paper")
    state = checkpoint.load()
    assert list(state) == list(decoder.state_dict())
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_groups_are_read_from_shapes_whatever_the_file_is_called(tmp_path: Path) -> None:
    decoder = tiny_decoder(PAPER["Q-GQA-2"])
    path = paper.save(tmp_path / "transformer_QGQA_4.pt", paper.checkpoint(decoder))
    assert open_checkpoint(path).spec.variant == "Q-GQA-2"


@pytest.mark.parametrize(
    ("variant", "evidence"),
    [("Q-K=V", "c_q and c_k only"), ("Q-MQA", "c_q and c_kv only"), ("Q=K=V", "c_k only")],
)
def test_sharing_comes_with_its_evidence(variant: str, evidence: str, tmp_path: Path) -> None:
    path = paper.save(tmp_path / "a.pt", paper.checkpoint(tiny_decoder(PAPER[variant])))
    checkpoint = open_checkpoint(path)
    assert evidence in checkpoint.sharing_evidence
    require_one_tensor(checkpoint)


def test_a_qkv_checkpoint_says_why_it_needs_two_tensors(tmp_path: Path) -> None:
    path = paper.save(tmp_path / "a.pt", paper.checkpoint(tiny_decoder(PAPER["QKV"])))
    with pytest.raises(CheckpointError, match=r"a\.pt .* key and value differ in layer 0"):
        require_one_tensor(open_checkpoint(path))


def test_a_fused_projection_with_equal_keys_and_values_is_q_k_v(tmp_path: Path) -> None:
    content = paper.checkpoint(tiny_decoder(PAPER["QKV"]))
    for key, tensor in content["model_state_dict"].items():
        if "c_attn" in key:
            rows = tensor.shape[0] // 3
            tensor[2 * rows :] = tensor[rows : 2 * rows]
    checkpoint = open_checkpoint(paper.save(tmp_path / "a.pt", content))
    assert checkpoint.spec == PAPER["Q-K=V"]
    assert "equal in all 2 layers" in checkpoint.sharing_evidence
    assert not any("v_proj" in name for name in checkpoint.load())


def test_inference_buffers_and_a_tied_head_are_left_out(tmp_path: Path) -> None:
    decoder = tiny_decoder(PAPER["Q-K=V"])
    content = paper.checkpoint(decoder)
    state = content["model_state_dict"]
    state["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    state["h.1.attn.causal_mask"] = torch.ones(8, 8, dtype=torch.bool)
    state["lm_head.weight"] = state["wte.weight"]
    checkpoint = open_checkpoint(paper.save(tmp_path / "a.pt", content))
    assert list(checkpoint.load()) == list(decoder.state_dict())


def test_a_separate_head_is_kept(tmp_path: Path) -> None:
    content = paper.checkpoint(tiny_decoder(PAPER["Q-K=V"]))
    content["model_state_dict"]["lm_head.weight"] = torch.ones(97, 64)
    content["model_config"]["tie_word_embeddings"] = False
    checkpoint = open_checkpoint(paper.save(tmp_path / "a.pt", content))
    assert not checkpoint.spec.tied_head
    assert torch.equal(checkpoint.load()["lm_head.weight"], torch.ones(97, 64))


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    content = paper.checkpoint(tiny_decoder(PAPER["Q-K=V"]).bfloat16())
    state = open_checkpoint(paper.save(tmp_path / "a.pt", content)).load()
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def test_gpt2_vocabulary_brings_its_end_of_text(tmp_path: Path) -> None:
    spec = dataclasses.replace(PAPER["Q-K=V"], vocab_size=50304)
    path = paper.save(tmp_path / "a.pt", paper.checkpoint(tiny_decoder(spec)))
    assert open_checkpoint(path).eos_token_ids == (50256,)


def _changed(tmp_path: Path, change: object) -> Path:
    content = paper.checkpoint(tiny_decoder(PAPER["Q-K=V"]))
    change(content)  # type: ignore[operator]
    return paper.save(tmp_path / "a.pt", content)


BAD = {
    "tensor missing": (
        lambda c: c["model_state_dict"].pop("h.1.mlp.c_fc.bias"),
        r"h\.1\.mlp\.c_fc\.bias is missing",
    ),
    "layer missing": (
        lambda c: c["model_config"].update(n_layer=3),
        "gives 3 layers, the weights hold 2",
    ),
    "vocabulary contradicts": (
        lambda c: c["model_config"].update(vocab_size=101),
        r"wte\.weight has shape \[97, 64\], the configuration gives \[101, 64\]",
    ),
    "transposed like GPT-2's Conv1D": (
        lambda c: c["model_state_dict"].update({"h.0.mlp.c_fc.weight": torch.ones(64, 96)}),
        r"c_fc\.weight has shape \[64, 96\], the configuration gives \[96, 64\]",
    ),
    "rows are no groups": (
        lambda c: c["model_state_dict"].update({"h.0.attn.c_k.weight": torch.ones(24, 64)}),
        "c_k.weight has 24 rows, no multiple of 16",
    ),
    "unknown projection": (
        lambda c: c["model_state_dict"].update({"h.0.attn.c_v.weight": torch.ones(64, 64)}),
        r"h\.0\.attn\.c_v\.weight is left over",
    ),
    "norm on the keys": (
        lambda c: c["model_state_dict"].update({"h.0.attn.k_norm.weight": torch.ones(16)}),
        "k_norm.weight is left over. A norm between a projection and its use",
    ),
    "no projections": (
        lambda c: [
            c["model_state_dict"].pop(k) for k in list(c["model_state_dict"]) if ".attn.c_" in k
        ],
        "has the projections none",
    ),
    "tied head differs": (
        lambda c: c["model_state_dict"].update({"lm_head.weight": torch.ones(97, 64)}),
        "lm_head.weight differs from wte.weight",
    ),
    "absurd number": (lambda c: c["model_config"].update(n_layer=10**12), "n_layer is 10000000"),
    "negative number": (lambda c: c["model_config"].update(n_head=-4), "n_head is -4"),
    "odd heads": (lambda c: c["model_config"].update(n_head=3), "not a multiple of n_head 3"),
    "missing key": (lambda c: c["model_config"].pop("n_embd"), "has no n_embd"),
    "integer weights": (
        lambda c: c["model_state_dict"].update({"ln_f.bias": torch.ones(64, dtype=torch.int8)}),
        "ln_f.bias is no plain tensor of floats",
    ),
    "more tensor than file": (
        lambda c: (
            c["model_state_dict"].update({"wte.weight": torch.ones(1, 1).expand(97, 64)})
            or c["model_state_dict"].update({"wpe.weight": torch.ones(1, 1).expand(2**23, 64)})
            or c["model_config"].update(n_positions=2**23)
        ),
        r"a\.pt has \d+ bytes, its tensors claim \d+",
    ),
    "no model_config": (lambda c: c.pop("model_config"), "has no model_config"),
    "no tensor": (lambda c: c["model_state_dict"].update(x=3), "x in model_state_dict is no ten"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_contradiction_is_refused_by_name(change: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(_changed(tmp_path, change))


class Hostile:
    """Unpickling this touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    path = _changed(tmp_path, lambda c: c.update(train_config=Hostile(target)))
    with pytest.raises(CheckpointError, match=r"a\.pt refers to code \(\w*\.mkdir\)") as caught:
        open_checkpoint(path)
    assert caught.value.fix is not None and "plain dictionary" in caught.value.fix
    assert not target.exists()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(part: float, tmp_path: Path) -> None:
    whole = _changed(tmp_path, lambda c: None).read_bytes()
    path = tmp_path / "short.pt"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(CheckpointError, match=r"short\.pt is truncated"):
        open_checkpoint(path)


def test_another_top_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a list"):
        open_checkpoint(paper.save(tmp_path / "a.pt", [torch.ones(2)]))


def test_a_file_of_the_old_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    content = paper.checkpoint(tiny_decoder(PAPER["Q-K=V"]))
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"old\.pt is truncated or no archive"):
        open_checkpoint(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _changed(tmp_path_factory.mktemp("whole"), lambda c: None).read_bytes()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_loaded_or_refused_and_nothing_else(
    data: st.DataObject, whole: bytes, tmp_path: Path
) -> None:
    content = bytearray(whole)
    # The pickle and the first records lie at the beginning, the archive's directory at the end.
    places = st.integers(0, 12_000) | st.integers(len(whole) - 6000, len(whole) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.pt"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        open_checkpoint(path).load()
