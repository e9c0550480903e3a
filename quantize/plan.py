"""What every weight of a model is stored as, resolved once (no torch here).

A plan is settled before anything is read: per tensor the number format, the columns that share a
scale, and the bits and bytes that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod

from onekv.errors import UsageError
from onekv.quantize.numbers import ROUNDED, Number

Shape = tuple[int, ...]

SMALLEST = 2048
"""Matrices of fewer elements stay floats: their scales and their error buy nothing."""

SCALE_BYTES = 2
"""Scales are values of float16; `weights.quantise` says why."""

BITS = {Number.FP32: 32, Number.FP16: 16, Number.INT16: 16, Number.INT8: 8, Number.INT4: 4}

_LAYER = re.compile(r"layers\.(\d+)\.")
_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
# A table of learned positions is added, never multiplied, and small.
_POSITIONS = "embed_positions.weight"


@dataclass(frozen=True)
class Override:
    """The format of the weights whose name matches `pattern` (as in a shell: `layers.0.*`)."""

    pattern: str
    number: Number
    group: int | None = None

    def matches(self, name: str) -> bool:
        """Whether a parameter is meant; its `.weight` may be left out."""
        stem = name.removesuffix(".weight")
        return fnmatchcase(name, self.pattern) or fnmatchcase(stem, self.pattern)

    def __str__(self) -> str:
        return f"{self.pattern}={self.number}" + ("" if self.group is None else f":{self.group}")


@dataclass(frozen=True)
class IntegerRules:
    """How a target stores integer weights.

    `groups` are the numbers of columns that may share a scale; a format without an entry has
    one scale per row. `int4_group` is the default for int4, None for one scale per row;
    `int8_group` is it for int8, in matrices whose columns it divides.
    `column_multiple` divides the columns of every rounded matrix. `kept` is the format of what
    stays a float. `own_tool`: the target rounds by itself, in one format for all matrices.
    `rounds_activations`: its products take activations rounded to 8 bits per token.
    """

    groups: Mapping[Number, tuple[int, ...]] = field(
        default_factory=lambda: {Number.INT4: (32, 64, 128, 256)}
    )
    int4_group: int | None = 32
    int8_group: int | None = None
    column_multiple: int = 1
    kept: Number = Number.FP32
    own_tool: bool = False
    rounds_activations: bool = False


@dataclass(frozen=True)
class TensorPlan:
    """One parameter's form; `group` columns share a scale, 0 when it stays a float."""

    name: str
    shape: Shape
    number: Number
    group: int = 0

    @property
    def parameters(self) -> int:
        """How many numbers it is."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size, scales included."""
        scales = self.parameters // self.group if self.group else 0
        return -(-self.parameters * BITS[self.number] // 8) + scales * SCALE_BYTES

    @property
    def bits(self) -> float:
        """Bits per parameter, scales included."""
        return 8 * self.bytes / self.parameters


@dataclass(frozen=True)
class WeightPlan:
    """Every parameter's form, in the order of the decoder's state."""

    tensors: tuple[TensorPlan, ...]

    @property
    def rounded(self) -> tuple[TensorPlan, ...]:
        """Those that become integers."""
        return tuple(tensor for tensor in self.tensors if tensor.group)

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def alike(self) -> tuple[tuple[str, tuple[TensorPlan, ...]], ...]:
        """Parameters that differ in their layer alone, as `layers.0-3.mlp.up_proj`."""
        groups: dict[tuple[object, ...], list[TensorPlan]] = {}
        for tensor in self.tensors:
            part = _LAYER.sub("layers.*.", tensor.name)
            groups.setdefault((part, tensor.shape, tensor.number, tensor.group), []).append(tensor)
        return tuple((_common_name(group), tuple(group)) for group in groups.values())

    @property
    def bytes(self) -> int:
        """The size of all weights."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits per parameter over the whole model."""
        return 8 * self.bytes / self.parameters


def parse_override(text: str) -> Override:
    """`PATTERN=FORMAT` or `PATTERN=FORMAT:GROUP`, such as `layers.0.*=int8`.

    Raises:
        UsageError: the text has another form.
    """
    pattern, equals, form = text.rpartition("=")
    name, colon, group = form.partition(":")
    known = [str(number) for number in Number]
    if not (pattern and equals and name in known) or (colon and not group.isdecimal()):
        raise UsageError(
            f"override {text!r} is not PATTERN=FORMAT or PATTERN=FORMAT:GROUP",
            f"For example 'layers.0.*=int8'; the formats are {', '.join(known)}.",
        )
    return Override(pattern, Number(name), int(group) if colon else None)


def plan_weights(
    shapes: Mapping[str, Shape],
    rules: IntegerRules,
    number: Number,
    group: int | None = None,
    overrides: Sequence[Override] = (),
) -> WeightPlan:
    """Settle the form of every parameter; of several overrides that match, the last one holds.

    A matrix that gives the logits is int8 in a model of int4: it decides between near words,
    and costs more quality in 4 bits than all layers together.

    Raises:
        UsageError: an override matches nothing, the target does not know a format or a group,
            or a matrix has columns that its group does not divide.
    """
    if rules.own_tool and (overrides or group):
        raise UsageError(
            "groups and overrides: the tool of this target and profile rounds all matrices alike",
            "Leave them out, or choose another profile.",
        )
    kept = rules.kept if number in ROUNDED else number
    matrices = list(_matrices(shapes))
    asked = dict.fromkeys(matrices, Override("*", number, group))
    if number is Number.INT4:
        # int8 beside int4 keeps a scale per row, which every target can store.
        rules = replace(rules, int8_group=None)
    if number is Number.INT4 and not rules.own_tool:
        asked |= {name: Override(name, Number.INT8) for name in matrices if name == _head(shapes)}
    for override in overrides:
        matching = [name for name in matrices if override.matches(name)]
        _check_override(override, matching, matrices, kept)
        asked |= dict.fromkeys(matching, override)
    return WeightPlan(
        tuple(
            TensorPlan(name, shape, kept)
            if name not in asked
            else _tensor(name, shape, asked[name], rules)
            for name, shape in shapes.items()
        )
    )


def _matrices(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Parameters that may become integers."""
    for name, shape in shapes.items():
        if len(shape) == 2 and prod(shape) >= SMALLEST and name != _POSITIONS:
            yield name


def _head(shapes: Mapping[str, Shape]) -> str:
    """The matrix that gives the logits: the embedding, when the model has no other."""
    return _HEAD if _HEAD in shapes else _EMBEDDING


def _check_override(
    override: Override, matching: Sequence[str], matrices: Sequence[str], kept: Number
) -> None:
    if not matching:
        names = ", ".join(_stem(name) for name in matrices[:3])
        raise UsageError(
            f"override {override}: no matrix has such a name",
            f"Names are those that --dry-run prints, such as {names}.",
        )
    if override.number not in (kept, *ROUNDED):
        raise UsageError(
            f"override {override}: what stays a float in this bundle is {kept}",
            f"Override with {kept}, int8 or int4.",
        )


def _tensor(name: str, shape: Shape, asked: Override, rules: IntegerRules) -> TensorPlan:
    if asked.number not in ROUNDED:
        if asked.group is not None:
            raise UsageError(
                f"a group of {asked.group} columns: {asked.number} weights have no scales",
                "Leave the group out, or choose int4.",
            )
        return TensorPlan(name, shape, asked.number)
    columns = shape[1]
    if columns % rules.column_multiple:
        raise UsageError(
            f"{name} has {columns} columns; the target's integers need a multiple of "
            f"{rules.column_multiple}",
            f"Keep it as it is: --override '{_stem(name)}={rules.kept}'.",
        )
    return TensorPlan(name, shape, asked.number, _group(name, columns, asked, rules))


def _group(name: str, columns: int, asked: Override, rules: IntegerRules) -> int:
    """The columns that share a scale."""
    group = asked.group
    if group is None:
        group = rules.int4_group if asked.number is Number.INT4 else _int8_group(columns, rules)
    if group is None:
        return columns
    known = rules.groups.get(asked.number, ())
    if group not in known:
        sizes = ", ".join(str(size) for size in known)
        raise UsageError(
            f"{asked.number} weights in groups of {group} columns: "
            + (f"the target knows {sizes}" if known else "the target has one scale per row"),
            f"Choose from {sizes}." if known else "Leave the group out.",
        )
    if columns % group:
        fitting = [size for size in known if size <= group and columns % size == 0]
        largest = max(fitting, default=None)
        form = "int8" if largest is None else f"{asked.number}:{largest}"
        raise UsageError(
            f"{name} has {columns} columns, which groups of {group} do not divide",
            ("No smaller group does" if largest is None else f"Groups of {largest} do")
            + f": --override '{_stem(name)}={form}'.",
        )
    return group


def _int8_group(columns: int, rules: IntegerRules) -> int | None:
    group = rules.int8_group
    return None if group is None or columns % group else group


def _common_name(tensors: Sequence[TensorPlan]) -> str:
    numbers = [int(found[1]) for t in tensors if (found := _LAYER.match(t.name))]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    layers = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return _stem(_LAYER.sub(f"layers.{layers}.", tensors[0].name))


def _stem(name: str) -> str:
    return name.removesuffix(".weight")
