"""The runner with ExecuTorch: the module's tokens, long prompts cut, and clear refusals."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.runner.running import check_failure, run
from tests.runner.tiny_module import CONTEXT, LONGEST_STEP, VOCABULARY, WIDTH, greedy, write_program

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7]
STDIN = ["--prompt", "-"]


def test_a_prompt_longer_than_a_step_is_cut_and_the_tokens_are_the_modules(
    executorch_runner: list[str], tiny_program: Path
) -> None:
    assert len(PROMPT) > LONGEST_STEP
    arguments = [*STDIN, "--decode", 20, "--ignore-eos"]
    result = run(executorch_runner, tiny_program, *arguments, prompt=PROMPT)
    assert result.code == 0, result.errors
    assert result.tokens == greedy(PROMPT, 20)
    model = result.event("model")
    assert (model["context"], model["largest_step"]) == (CONTEXT, LONGEST_STEP)
    assert model["vocabulary"] == VOCABULARY
    assert model["cache_bytes"] == CONTEXT * WIDTH * 4


def test_the_programs_own_end_token_ends_the_decode(
    executorch_runner: list[str], tiny_program: Path
) -> None:
    free = greedy(PROMPT, 20)
    ends = free.index(2) if 2 in free else None
    result = run(executorch_runner, tiny_program, *STDIN, "--decode", 20, prompt=PROMPT)
    assert result.tokens == free[: None if ends is None else ends + 1]


def test_more_tokens_than_the_arena_holds_are_refused(
    executorch_runner: list[str], tiny_program: Path
) -> None:
    result = run(executorch_runner, tiny_program, *STDIN, "--decode", 40, prompt=PROMPT)
    check_failure(result, "context-full", f"69 tokens do not fit into a context of {CONTEXT}")


@torch.library.custom_op("onekv_tests::twice", mutates_args=())
def _twice(x: Tensor) -> Tensor:
    return x * 2


_twice.register_fake(torch.empty_like)
torch.library.define("onekv_tests::twice.out", "(Tensor x, *, Tensor(a!) out) -> Tensor(a!)")


class _Twice(nn.Module):
    """Calls an operator that only Python has."""

    def forward(self, tokens: Tensor, input_pos: Tensor) -> Tensor:
        rows: Tensor = torch.ops.onekv_tests.twice(tokens.float())[..., None] + input_pos
        return rows


def test_an_operator_that_no_library_has_is_named(
    executorch_runner: list[str], tmp_path: Path
) -> None:
    program = write_program(tmp_path / "twice.pte", _Twice())
    result = run(executorch_runner, program, *STDIN)
    check_failure(result, "missing-operator", "onekv_tests::twice.out")
    assert "--operators" in result.event("error")["message"]


def test_libraries_that_cannot_be_loaded_are_named(
    executorch_runner: list[str], tiny_program: Path
) -> None:
    result = run(executorch_runner, tiny_program, *STDIN, "--operators", "/nowhere.so")
    check_failure(result, "missing-library", "/nowhere.so")


def test_another_version_than_expected_is_refused(
    executorch_runner: list[str], tiny_program: Path
) -> None:
    result = run(executorch_runner, tiny_program, *STDIN, "--expect-version", "0.1")
    check_failure(result, "version-mismatch", "for ExecuTorch 0.1")


@pytest.mark.parametrize("kept", [0, 10, 1000, -100])
def test_files_that_were_cut_are_refused(
    executorch_runner: list[str], tiny_program: Path, tmp_path: Path, kept: int
) -> None:
    cut = tmp_path / "cut.pte"
    cut.write_bytes(tiny_program.read_bytes()[:kept])
    check_failure(run(executorch_runner, cut, *STDIN), "corrupt-file", "is no program")


def test_no_flipped_byte_ends_the_process_by_a_signal(
    executorch_runner: list[str], tiny_program: Path, tmp_path: Path
) -> None:
    generator, whole = random.Random(0), tiny_program.read_bytes()
    ends = set()
    for number in range(60):
        content = bytearray(whole)
        for _ in range(generator.choice([1, 4, 16])):
            content[generator.randrange(3000 if number % 2 else len(whole))] ^= 1 << number % 8
        broken = tmp_path / "broken.pte"
        broken.write_bytes(content)
        result = run(executorch_runner, broken, *STDIN, "--decode", 4, "--sample-ms", 0)
        assert result.code in (0, 1, 2), content
        assert (result.code == 0) == (result.events[-1]["event"] == "end")
        ends.add(result.code)
    assert 1 in ends, "no file was broken: the test tests nothing"
