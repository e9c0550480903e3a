"""One seeded, resumable training run of a decoder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from samples.recipe import Recipe

_START = torch.zeros(1, dtype=torch.int64)


def train(
    spec: ModelSpec,
    recipe: Recipe,
    stream: Tensor,
    checkpoint: Path,
    report: Callable[[str], None] = print,
    checkpoint_every: int = 100,
) -> Decoder:
    """Train on the ids of `stream` [N], going on from `checkpoint` where it exists.

    Step i depends on the state before it and on (seed, i) alone, so an interrupted run ends
    with the weights of an uninterrupted one. `report` is called after every checkpoint.

    Raises:
        ValueError: `checkpoint` belongs to another model or recipe.
    """
    decoder = new_decoder(spec, recipe.seed)
    optimizer = _optimizer(decoder, recipe)
    identity = repr((spec, recipe))
    done = _resume(checkpoint, decoder, optimizer, identity)
    began = time.perf_counter()
    for step in range(done, recipe.steps):
        loss = _train_step(decoder, optimizer, recipe, batch_at(stream, recipe, step), step)
        if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
            _save(checkpoint, decoder, optimizer, identity, step + 1)
            tokens = (step + 1 - done) * recipe.batch * recipe.context
            speed = tokens / (time.perf_counter() - began)
            report(f"step {step + 1}/{recipe.steps} loss {loss:.4f} {speed:.0f} tokens/s")
    return decoder.eval()


def new_decoder(spec: ModelSpec, seed: int) -> Decoder:
    """A decoder with seeded normal weights; what adds to the residual starts smaller."""
    decoder = Decoder(spec)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in decoder.named_parameters():
        if weight.dim() == 2:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / math.sqrt(2 * spec.layers) if residual else 0.02
            nn.init.normal_(weight, std=std, generator=generator)
    return decoder


def batch_at(stream: Tensor, recipe: Recipe, step: int) -> Tensor:
    """Windows [batch, context + 1] at random places that (seed, step) decide."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    starts = torch.randint(len(stream) - recipe.context, (recipe.batch, 1), generator=generator)
    return stream[starts + torch.arange(recipe.context + 1)]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    part = (step - warm) / max(1, recipe.steps - warm)
    low = recipe.final_rate
    return recipe.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * part)) / 2)


def _loss(decoder: Decoder, windows: Tensor) -> Tensor:
    logits = decoder(windows[:, :-1], _START)
    return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


def _train_step(
    decoder: Decoder, optimizer: torch.optim.Optimizer, recipe: Recipe, batch: Tensor, step: int
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step)
    with torch.autocast("cpu", torch.bfloat16):
        loss = _loss(decoder, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(decoder.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _optimizer(decoder: Decoder, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms alone."""
    parameters = list(decoder.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def _resume(
    checkpoint: Path, decoder: Decoder, optimizer: torch.optim.Optimizer, identity: str
) -> int:
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    if saved["identity"] != identity:
        raise ValueError(f"{checkpoint} belongs to another run: {saved['identity']}")
    decoder.load_state_dict(saved["decoder"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _save(
    checkpoint: Path, decoder: Decoder, optimizer: torch.optim.Optimizer, identity: str, step: int
) -> None:
    state = {
        "identity": identity,
        "step": step,
        "decoder": decoder.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)
