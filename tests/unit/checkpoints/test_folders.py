"""Hugging Face folders: plain families against transformers itself, and our own type."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onekv.errors import CheckpointError
from onekv.export.checkpoints import open_checkpoint, read_spec, require_one_tensor
from onekv.export.model.config import KNOWN_TYPES, config_from_spec, onekv_config, spec_from_config
from onekv.export.model.decoder import build_decoder
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Rope, Sharing
from tests.builders import folders
from tests.specs import LLAMA, tiny_decoder, token_ids

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES = {
    "llama": transformers.LlamaConfig(**SMALL),
    "llama, tied, biases": transformers.LlamaConfig(
        **SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama, wide heads, llama3 rope": transformers.LlamaConfig(
        **SMALL, head_dim=24, rope_parameters=LLAMA3_ROPE
    ),
    "llama, yarn": transformers.LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 2.0}
    ),
    "mistral, window": transformers.MistralConfig(**SMALL, sliding_window=5),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=None),
    "qwen2": transformers.Qwen2Config(**SMALL, tie_word_embeddings=True),
}


def random_model(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("shard", ["50GB", "30KB"])
def test_a_plain_model_computes_what_transformers_computes(
    config: transformers.PreTrainedConfig, shard: str, tmp_path: Path
) -> None:
    model = random_model(config)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "30KB")

    checkpoint = open_checkpoint(tmp_path)

    assert checkpoint.spec.sharing is Sharing.QKV
    assert (checkpoint.eos_token_ids, checkpoint.bos_token_id) == ((2,), 1)
    decoder = build_decoder(checkpoint.spec, checkpoint.load())
    tokens = token_ids(checkpoint.spec, 20)
    with torch.no_grad():
        expected, found = model(tokens).logits, decoder(tokens, torch.tensor([0]))
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_configuration_of_transformers_4_gives_the_same_rope(tmp_path: Path) -> None:
    config = {**SMALL, "model_type": "llama"}
    now = spec_from_config(config | {"rope_parameters": LLAMA3_ROPE})
    scaling = {k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"}
    before = spec_from_config(config | {"rope_theta": 1000.0, "rope_scaling": scaling})
    assert now == before
    assert now.rope is not None and (now.rope.kind, now.rope.theta) == ("llama3", 1000.0)
    oldest = spec_from_config(config | {"rope_scaling": {"type": "linear", "factor": 2.0}})
    assert oldest.rope is not None and oldest.rope.kind == "linear"


def test_configuration_and_specification_are_inverse(spec: ModelSpec) -> None:
    for config in (config_from_spec(spec), onekv_config(spec)):
        parsed = spec_from_config(json.loads(json.dumps(config)))
        assert replace(parsed, rope=spec.rope) == spec
        assert parsed.rope is None or spec.rope is None or parsed.rope.theta == spec.rope.theta


def test_shapes_are_the_decoders_own(spec: ModelSpec) -> None:
    state = tiny_decoder(spec).state_dict()
    assert parameter_shapes(spec) == {name: tuple(t.shape) for name, t in state.items()}
    assert list(parameter_shapes(spec)) == list(state)


def test_a_folder_of_our_type_gives_the_model_back(spec: ModelSpec, tmp_path: Path) -> None:
    decoder = tiny_decoder(spec)
    checkpoint = open_checkpoint(folders.write_onekv(tmp_path / "m", decoder))
    assert replace(checkpoint.spec, rope=spec.rope) == spec
    assert (checkpoint.obstacle is None) == spec.sharing.one_tensor
    state = checkpoint.load()
    assert state.keys() == decoder.state_dict().keys()
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(state[name], tensor), name


def llama_folder(folder: Path, change: dict[str, Any] | None = None, shards: int = 1) -> Path:
    """A plain Llama as transformers saves it; `change` replaces keys of its config."""
    decoder = tiny_decoder(replace(LLAMA["llama GQA-2"], tied_head=True))
    tensors = {f"model.{name}": tensor for name, tensor in decoder.state_dict().items()}
    return folders.write_folder(
        folder, folders.llama_config(decoder) | (change or {}), tensors, shards
    )


def with_values_of_keys(tensors: dict[str, Tensor], layers: tuple[int, ...] = (0, 1)) -> None:
    for i in layers:
        stem = f"model.layers.{i}.self_attn"
        tensors[f"{stem}.v_proj.weight"] = tensors[f"{stem}.k_proj.weight"]


def shared_llama(
    folder: Path, config: dict[str, Any], layers: tuple[int, ...] = (0, 1), shards: int = 1
) -> Path:
    decoder = tiny_decoder(LLAMA["llama GQA-2"])
    tensors = {f"model.{name}": tensor for name, tensor in decoder.state_dict().items()}
    with_values_of_keys(tensors, layers)
    return folders.write_folder(folder, folders.llama_config(decoder) | config, tensors, shards)


@pytest.mark.parametrize("shards", [1, 5])
def test_a_llama_with_equal_keys_and_values_is_q_k_v(shards: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(shared_llama(tmp_path / "m", {}, shards=shards))
    assert checkpoint.spec.variant == "Q-GQA-2"
    assert checkpoint.sharing_evidence == (
        "the projections of key and value are equal in all 2 layers"
    )
    assert checkpoint.load().keys() == parameter_shapes(checkpoint.spec).keys()
    require_one_tensor(checkpoint)


def test_equal_keys_and_values_in_some_layers_are_not_enough(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(shared_llama(tmp_path / "m", {}, layers=(0,)))
    assert checkpoint.spec.variant == "GQA-2"
    with pytest.raises(
        CheckpointError,
        match=r"layers\.1\.self_attn\.v_proj\.weight differs from k_proj\.weight",
    ):
        require_one_tensor(checkpoint)


def test_a_declared_sharing_with_equal_copies_is_accepted(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(shared_llama(tmp_path / "m", {"sharing": "q-k=v"}))
    assert checkpoint.spec.sharing is Sharing.K_IS_V
    assert "stored copies are equal" in checkpoint.sharing_evidence


def test_a_declared_sharing_with_other_values_is_refused(tmp_path: Path) -> None:
    folder = shared_llama(tmp_path / "m", {"sharing": "q-k=v"}, layers=(0,))
    with pytest.raises(
        CheckpointError, match=r"declares sharing q-k=v, but layers\.1\.self_attn\.v_proj\.weight"
    ):
        open_checkpoint(folder)


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    decoder = tiny_decoder(LLAMA["llama GQA-2"])
    tensors = {f"model.{name}": tensor for name, tensor in decoder.state_dict().items()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    config = folders.llama_config(decoder)
    folder = folders.write_folder(tmp_path / "m", config, tensors)
    assert open_checkpoint(folder).load().keys() == decoder.state_dict().keys()

    tensors["lm_head.weight"] = torch.ones(97, 64)
    folders.write_folder(folder, config, tensors)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens"):
        open_checkpoint(folder)


BAD_CONFIG = {
    "unknown type": ({"model_type": "mamba"}, "'mamba', which onekv does not read\nKnown types: l"),
    "no type": ({"model_type": None}, "model_type None"),
    "negative": ({"num_hidden_layers": -1}, "num_hidden_layers is -1; it must be a whole number"),
    "absurd": ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it must be"),
    "text": ({"hidden_size": "64"}, "hidden_size is '64'"),
    "not a number": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    "no flag": ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; it must be true or false"),
    "activation": ({"hidden_act": "relu2"}, "hidden_act 'relu2', which onekv does not compute"),
    "sharing": ({"sharing": "k=v"}, "sharing is 'k=v'; it must be one of qkv, q-k=v"),
    "quantised": ({"quantization_config": {"bits": 4}}, "the weights are quantised already"),
    "partial rotary": ({"partial_rotary_factor": 0.5}, "rotates only a part of head_dim: 0.5"),
    "list in rope": ({"rope_parameters": {"long_factor": [1.0]}}, "long_factor"),
    "layers": ({"num_hidden_layers": 3}, "m: the configuration gives 3 layers, the weights hold 2"),
    "vocabulary": (
        {"vocab_size": 98},
        r"embed_tokens\.weight has shape \[97, 64\], the configuration gives \[98, 64\]",
    ),
    "kv heads": ({"num_key_value_heads": 4}, r"k_proj\.weight has shape \[32, 64\].* \[64, 64\]"),
    "heads do not divide": ({"num_attention_heads": 3}, "3 query heads cannot be split over 2"),
    "separate head": ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    "no position table": (
        {"model_type": "onekv", "position_embedding": "learned"},
        r"model\.embed_positions\.weight is missing",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG.keys())
def test_a_bad_configuration_is_refused_with_the_key(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(llama_folder(tmp_path / "m", change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json holds no JSON object"),
        ("[" * 100_000, "config.json is not valid JSON"),
        ("\ud800", "config.json is not valid JSON"),
    ],
)
def test_a_configuration_that_is_no_json_object_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@settings(max_examples=300)
@given(data=st.data())
def test_any_value_of_any_key_is_understood_or_refused(data: st.DataObject) -> None:
    config = onekv_config(LLAMA["llama Q-GQA-2"]) | data.draw(
        st.fixed_dictionaries({"model_type": st.sampled_from(KNOWN_TYPES)})
    )
    keys = st.sampled_from([*config, *_MORE_KEYS])
    config |= data.draw(st.dictionaries(keys, _ANYTHING, max_size=3))
    try:
        spec_from_config(config)
    except CheckpointError as error:
        assert error.message


_MORE_KEYS = (
    "rope_scaling",
    "rope_theta",
    "use_sliding_window",
    "original_max_position_embeddings",
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_ANYTHING = (
    _SCALARS
    | st.lists(_SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["rope_type", "type", "rope_theta", "factor"]), _SCALARS)
    | st.sampled_from(["llama3", "yarn", "learned", "q=k=v", "layernorm", "gelu", 1, 2, 64])
)


def test_a_norm_between_projection_and_use_is_refused_by_name(tmp_path: Path) -> None:
    decoder = tiny_decoder(LLAMA["llama Q-GQA-2"])
    tensors = folders.onekv_tensors(decoder)
    tensors["model.layers.0.self_attn.k_norm.weight"] = torch.ones(16)
    folder = folders.write_folder(tmp_path / "m", onekv_config(decoder.spec), tensors)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.self_attn\.k_norm\.weight is left over. A norm between"
    ):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard model-00002-of-00003\.safetensors is miss"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "..", "x.bin"]
)
def test_a_shard_outside_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m", shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="which is no file of this folder"):
        open_checkpoint(folder)


def test_an_index_that_names_an_absent_tensor_is_refused(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m", shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"puts model\.extra\.weight into model-00001"):
        open_checkpoint(folder)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"Save pytorch_model\.bin as safetensors"):
        open_checkpoint(folder)


@pytest.mark.parametrize("make", ["empty folder", "text file", "nothing"])
def test_what_is_no_checkpoint_gets_the_list_of_what_is(make: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if make == "empty folder":
        path.mkdir()
    elif make == "text file":
        path.write_text("hello")
    with pytest.raises(CheckpointError, match=r"Hugging Face folder .*\.pt file .*\.gguf file"):
        open_checkpoint(path)


def test_generation_config_decides_where_text_ends(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m", {"eos_token_id": 5, "bos_token_id": 3})
    assert open_checkpoint(folder).eos_token_ids == (5,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7, 4096]}')
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.eos_token_ids, checkpoint.bos_token_id) == ((2, 7), 3)


def test_the_tokenizers_folder_is_given_only_when_it_holds_one(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m")
    assert open_checkpoint(folder).tokenizer_dir is None
    (folder / "tokenizer.json").write_text("{}")
    assert open_checkpoint(folder).tokenizer_dir == folder


def test_a_configuration_alone_gives_a_specification(tmp_path: Path) -> None:
    spec = LLAMA["llama Q-MQA"]
    (tmp_path / "config.json").write_text(json.dumps(onekv_config(spec)))
    for path in (tmp_path, tmp_path / "config.json"):
        assert replace(read_spec(path), rope=spec.rope) == spec


def test_reading_a_folder_needs_no_torch(tmp_path: Path) -> None:
    folder = shared_llama(tmp_path / "m", {})
    code = (
        "import sys; from pathlib import Path; from onekv.export.checkpoints import read_spec;"
        "print(read_spec(Path(sys.argv[1])).variant, 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["Q-GQA-2", "False"]


def test_rope_without_its_parameters_is_refused_when_its_table_is_needed() -> None:
    parameters = (("rope_theta", 1000.0), ("rope_type", "llama3"))
    spec = replace(LLAMA["llama Q-MQA"], rope=Rope(1000.0, "llama3", parameters))
    with pytest.raises(CheckpointError, match="'llama3' has a parameter that is missing or wrong"):
        tiny_decoder(spec)


def test_rope_of_an_unknown_type_is_refused_when_its_table_is_needed(tmp_path: Path) -> None:
    spec = replace(LLAMA["llama Q-MQA"], rope=Rope(kind="spiral"))
    with pytest.raises(CheckpointError, match="rope type 'spiral'"):
        tiny_decoder(spec)
