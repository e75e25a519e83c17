"""Approvals: the actor that holds what waits for people, and how it is announced."""
