"""Fake checkpoints, written the way their real authors write them."""
