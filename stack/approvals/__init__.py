"""Approvals: what waits for people and who said what, and the notices of it."""
