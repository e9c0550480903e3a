"""Calibrated integer weights: GPTQ layer by layer, on what a text makes the layers see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from onekv.errors import OnekvError
from onekv.export.model.cache import WholeSequence
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.spec import ModelSpec
from onekv.export.targets import Progress
from onekv.quantize.gptq import quantise_calibrated
from onekv.quantize.numbers import Number
from onekv.quantize.plan import TensorPlan, WeightPlan
from onekv.quantize.weights import QuantisedWeight, quantise

Run = Callable[[nn.Module, Tensor], Tensor]

WINDOW = 512
"""Most tokens of one calibration window."""

WINDOWS = 32
"""Windows that are used, from the start of the text on."""


def calibration_windows(tokens: Sequence[int], spec: ModelSpec) -> Tensor:
    """Token ids [windows, window] from the start of a text."""
    window = min(WINDOW, spec.max_positions)
    count = min(WINDOWS * WINDOW, len(tokens)) // window
    return torch.tensor(tokens[: count * window]).reshape(count, window)


def calibrate_weights(
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    plan: WeightPlan,
    windows: Tensor,
    progress: Progress,
) -> dict[str, QuantisedWeight]:
    """Round the matrices that a plan names: int4 ones of layers by GPTQ, the others to nearest.

    One layer's floats, its inputs' Hessians and the hidden states of `windows` [N, T] are held
    at a time. A layer sees what the rounded layers before it give.

    Raises:
        OnekvError: a matrix cannot be rounded; it is named.
    """
    decoder = build_decoder(spec, dict(state), windows.shape[1])
    plans = {tensor.name: tensor for tensor in plan.rounded}
    rounded = {
        name: _plain(state[name], tensor)
        for name, tensor in plans.items()
        if not name.startswith("layers.")
    }
    with torch.inference_mode():
        hidden, run = _embed(decoder, windows, rounded)
        for index, layer in enumerate(decoder.layers):
            wide, prefix = layer.float(), f"layers.{index}."
            own = {name: p for name, p in plans.items() if name.startswith(prefix)}
            hessians = _hessians(run, wide, prefix, own, hidden)
            for name, tensor in own.items():
                parameter = wide.get_parameter(name.removeprefix(prefix))
                rounded[name] = _calibrated(parameter, hessians.get(name), tensor)
                parameter.data = rounded[name].dequantise()
            for row in range(len(hidden)):
                hidden[row] = run(wide, hidden[row : row + 1])[0]
            # The layer's floats are done with.
            wide.to("meta")
            progress(index + 1, spec.layers)
    return rounded


def _plain(weight: Tensor, plan: TensorPlan) -> QuantisedWeight:
    return _named(plan.name, lambda: quantise(weight, plan.number, plan.group))


def _calibrated(weight: Tensor, hessian: Tensor | None, plan: TensorPlan) -> QuantisedWeight:
    if hessian is None:
        return _plain(weight, plan)
    return _named(plan.name, lambda: quantise_calibrated(weight, hessian, plan.number, plan.group))


def _named(name: str, work: Callable[[], QuantisedWeight]) -> QuantisedWeight:
    try:
        return work()
    except OnekvError as error:
        raise OnekvError(f"{name}: {error.message}", error.fix) from None


def _embed(
    decoder: Decoder, windows: Tensor, rounded: Mapping[str, QuantisedWeight]
) -> tuple[Tensor, Run]:
    """Hidden states [N, T, hidden] that enter the first layer, and how a layer is run on one."""
    name = "embed_tokens.weight"
    decoder.embed_tokens.float()
    if name in rounded:
        decoder.embed_tokens.weight.data = rounded[name].dequantise()
    if decoder.spec.rope is None:
        decoder.embed_positions.float()
    hidden, turn, step = decoder.begin(windows, torch.zeros(1, dtype=torch.int64))

    def run(layer: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = layer(x, turn, step, WholeSequence())
        return out

    return hidden, run


def _hessians(
    run: Run, layer: nn.Module, prefix: str, plans: Mapping[str, TensorPlan], hidden: Tensor
) -> dict[str, Tensor]:
    """The sum of x x^T over the inputs of every linear part that becomes int4."""
    sums: dict[str, Tensor] = {}
    hooks = []
    for path, part in layer.named_modules():
        plan = plans.get(f"{prefix}{path}.weight")
        if plan is not None and plan.number is Number.INT4:
            sums[plan.name] = torch.zeros(plan.shape[1], plan.shape[1])
            hooks.append(part.register_forward_pre_hook(_adder(sums[plan.name])))
    for row in range(len(hidden) if hooks else 0):
        run(layer, hidden[row : row + 1])
    for hook in hooks:
        hook.remove()
    return sums


def _adder(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].flatten(0, -2)
        total.addmm_(rows.T, rows)

    return add
