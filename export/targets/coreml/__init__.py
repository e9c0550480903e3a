"""Core ML: a stateful package for iPhones, made and checked without a Mac."""

from onekv.export.targets.coreml.entry import lower, stored_weights

__all__ = ["lower", "stored_weights"]
