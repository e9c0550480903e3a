"""Core ML: a stateful package for iPhones, made and checked without a Mac."""

from onekv.export.targets.coreml.entry import check, lower, stored_weights

__all__ = ["check", "lower", "stored_weights"]
