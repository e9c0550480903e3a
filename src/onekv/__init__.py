"""onekv puts transformers that keep one tensor per token and layer on phones."""

__version__ = "0.1.0"
