"""From a checkpoint to a bundle: read, trace, lower, verify, write."""
