"""Ending a stack's actors, and what they started."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError

_SHUT_S = 10.0
_SWEEP_S = 5.0


def close_layers(actors: Mapping[str, Any]) -> None:
    """Let the driver put runtimes down, and the journal write its last."""
    for layer, method in (("driver", "shut"), ("journal", "stop")):
        if layer in actors:
            with contextlib.suppress(RayError, TimeoutError):
                ray.get(getattr(actors[layer], method).remote(), timeout=_SHUT_S)


def end_actors(actors: Mapping[str, Any]) -> None:
    """End actors for good; the Wardens last, which end what the others left running."""
    wardens = [handle for layer, handle in actors.items() if layer.startswith("warden")]
    for handle in actors.values():
        if handle not in wardens:
            ray.kill(handle, no_restart=True)
    if wardens:
        ray.wait([warden.end.remote() for warden in wardens], num_returns=len(wardens), timeout=_SWEEP_S)
    for handle in wardens:
        ray.kill(handle, no_restart=True)
