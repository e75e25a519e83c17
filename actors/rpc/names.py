"""Where actors are found: in Ray namespace `airside`, as `{stack}/{cell}/{layer}[/{key}]`; and how they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airside.actors.settings import Settings

NAMESPACE = "airside"
CELL = "cell-0"
"""A stack has one cell by default: one journal, one driver."""


def actor_name(stack: str, layer: str, key: str = "", *, cell: str = CELL) -> str:
    """Return an actor's name."""
    return f"{stack}/{cell}/{layer}" + (f"/{key}" if key else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellAddress:
    """Which cell is meant, how many executors it has, and how its layers are asked.

    It is all that a caller needs: what else a stack was started with is the layers' own affair.
    """

    stack: str
    cell: str = CELL
    executors: int
    transport: Literal["sockets", "ray"]
    layer_patience_s: float
    max_batch: int
    calls_in_flight: int

    @classmethod
    def of(cls, settings: Settings) -> CellAddress:
        """Return the address of the cell that is started with these settings."""
        return cls(
            stack=settings.stack,
            executors=settings.executors,
            transport=settings.transport,
            layer_patience_s=settings.layer_patience_s,
            max_batch=settings.max_batch,
            calls_in_flight=settings.calls_in_flight,
        )

    def actor_name(self, layer: str, key: str = "") -> str:
        """Return the name of a layer's actor."""
        return actor_name(self.stack, layer, key, cell=self.cell)

    @property
    def prefix(self) -> str:
        """What the names of all its actors begin with."""
        return self.actor_name("")
