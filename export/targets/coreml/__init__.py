"""Core ML: a stateful package for iPhones, made and checked without a Mac."""
