"""Devices to test against."""
