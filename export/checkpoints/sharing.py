"""Proof that keys and values come from one projection: from tensors, never from a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onekv.export.model.spec import ModelSpec, Sharing

Difference = Callable[[int], str | None]
"""For a layer: a sentence on how its key and value projections differ; None if they are equal."""


@dataclass(frozen=True)
class Proof:
    """A specification with the sharing that was found, and what was seen.

    obstacle: what keeps keys and values apart, None when they are one tensor.
    """

    spec: ModelSpec
    evidence: str
    obstacle: str | None = None


def prove(declared: ModelSpec, without_values: str, difference: Difference) -> Proof:
    """Compare keys and values of a model that stores both; stop at the first difference.

    declared: the specification with the sharing that the stored projections have.
    without_values: the evidence of a model that stores no value projection.
    """
    if declared.sharing.one_tensor:
        return Proof(declared, without_values)
    for layer in range(declared.layers):
        apart = difference(layer)
        if apart is not None:
            return Proof(declared, f"two tensors: {apart}", apart)
    shared = Sharing.ALL if declared.sharing.query_is_key else Sharing.K_IS_V
    evidence = f"the projections of key and value are equal in all {declared.layers} layers"
    return Proof(declared.with_sharing(shared), evidence)
