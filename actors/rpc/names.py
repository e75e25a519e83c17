"""Where actors are found: Ray namespace `airside`, named `{stack}/{cell}/{layer}[/{key}]`."""

from __future__ import annotations

NAMESPACE = "airside"
CELL = "cell-0"
"""A stack has one cell by default: one journal, one driver."""


def actor_name(stack: str, layer: str, key: str = "") -> str:
    """Return an actor's name."""
    return f"{stack}/{CELL}/{layer}" + (f"/{key}" if key else "")
