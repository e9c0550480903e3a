"""Devices to measure on. A device puts a bundle and the runner in place, runs, and brings back."""
