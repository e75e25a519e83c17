"""Wardens, one a node: they read pulses, renew leases and kill; and the layers that they watch."""
