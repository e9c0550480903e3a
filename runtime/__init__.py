"""What runs a model: the operator, its adapters, sessions and generation."""
