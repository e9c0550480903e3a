"""The attention kernel against its peers on this machine: `python -m onekv.bench.kernel`."""
