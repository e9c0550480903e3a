"""The model: its specification (no torch) and one decoder in plain PyTorch."""
