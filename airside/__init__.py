"""Airside."""
