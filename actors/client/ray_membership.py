"""The one Ray a process can be in: joined for the first stack that needs it, left with the last.

A Ray that was there before is never shut down, and one of our own only when no other stack is on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.util import list_named_actors

from airside.actors.client.progress import is_in_notebook
from airside.actors.rpc.names import NAMESPACE
from airside.stack.errors import LayerUnavailable, Misuse

logger = logging.getLogger("airside")

INLINE_BYTES = 4 * 2**20
"""What a Ray call carries up to this size travels in the call itself; larger arguments take the object store.

Ray's own bound is 100 KiB, which a coalesced batch of a hundred steps exceeds: the detour cost a sixth of the
throughput (`benchmarks.governed_steps`).
"""

CONNECT_S = 5.0
"""Ray itself tries for minutes; what does not take a connection in this time is gone, or too far away to work with."""

START_S = 120.0
"""Longest a stack may take to start; a cold machine needs about 15 s."""

_AGAIN_S = 1.0


@dataclass(eq=False)
class _Joined:
    """A Ray that Airside joined for this process, and by how many stacks it is used."""

    started: bool
    users: set[Membership] = field(default_factory=set)


_lock = threading.RLock()
_now: _Joined | None = None
"""The Ray this process is in, if Airside joined it."""


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """One stack's use of this process's Ray.  `address` is that Ray's; two stacks of a process share it."""

    address: str
    joined: _Joined | None
    """None for a Ray that the process had before: it is not ours to leave."""

    @property
    def ends_ray(self) -> bool:
        """Whether Ray itself, which this process started, ends with this use."""
        return self.joined is not None and self.joined.started and self.joined.users <= {self}

    @property
    def is_current(self) -> bool:
        """Whether the process is still in that Ray."""
        return bool(ray.is_initialized() and ray.get_runtime_context().gcs_address == self.address)

    def leave(self) -> None:
        """Give it up; the last use of a Ray that Airside joined leaves it."""
        global _now
        with _lock:
            if self.joined is None or self.joined is not _now:
                return
            self.joined.users.discard(self)
            if self.joined.users:
                return
            if self.joined.started and self.is_current and (others := list_stacks()):
                logger.warning(
                    "Ray stays up as long as this process: stack %s is on it",
                    ", ".join(sorted(others)),
                    extra={"action": "ray_kept"},
                )
                return
            _now = None
            if self.is_current:
                ray.shutdown()


def join_ray(address: str | None, *, auth_mode: str = "") -> Membership:
    """Join the Ray at `address` (None: the one this process is in, or a new one of its own); raise `Misuse`.

    A process can be in one Ray: an address of another is refused naming both.
    """
    global _now
    if address is not None and not address.strip():
        raise Misuse("address: it is empty: give host:port or 'auto', or leave it out for a Ray of this machine")
    with _lock:
        if ray.is_initialized():
            here = str(ray.get_runtime_context().gcs_address)
            if address is not None and not is_same_ray(address, here):
                raise Misuse(
                    f"this process is in the Ray at {here} and cannot be in that at {address} as well: "
                    "leave the first (close its stacks, or ray.shutdown()), or use another process"
                )
        else:
            _init(address, auth_mode)
            _now = _Joined(started=address is None)
            here = str(ray.get_runtime_context().gcs_address)
        member = Membership(here, _now)
        if _now is not None:
            _now.users.add(member)
        return member


def is_listening(address: str) -> bool:
    """Whether anything listens at `host:port`; of what is no such address, Ray says what is wrong."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return True
    except (OSError, OverflowError):
        return False


def list_stacks() -> set[str]:
    """Return the names of the stacks on this process's Ray."""
    return {
        entry["name"].partition("/")[0]
        for entry in list_named_actors(all_namespaces=True)
        if entry["namespace"] == NAMESPACE
    }


def is_same_ray(address: str, here: str) -> bool:
    """Whether two addresses are of one Ray; `"auto"` is of whichever there is."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address in ("auto", "local")
    own, _, own_port = here.rpartition(":")
    return port == own_port and bool(_ips(host) & _ips(own))


def _ips(host: str) -> set[str]:
    """Return a host's addresses; those of this machine count as one another."""
    with contextlib.suppress(OSError):
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
        mine = {ray.util.get_node_ip_address(), "127.0.0.1", "::1"}
        return found | mine if found & mine else found
    return {host}


def _init(address: str | None, auth_mode: str) -> None:
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if auth_mode and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = auth_mode
        Config.initialize("")  # Ray read its environment when it was imported; this is how it does so again
    local: dict[str, Any] = {}
    if address is None:
        local = {"num_cpus": os.cpu_count(), "include_dashboard": False}
        local["_system_config"] = {"max_direct_call_object_size": INLINE_BYTES}
    if is_in_notebook():
        # A kernel is sent SIGTERM to restart it: Ray would dump its frames there, and abort an end that is slow.
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    until = time.monotonic() + START_S
    while True:
        try:
            ray.init(
                address=address or "local",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local,
            )
            return
        except ConnectionError as error:
            raise Misuse(f"no Ray cluster answers at {address}: {error}") from None
        except Exception as error:  # Ray raises bare exceptions when its own processes do not come up
            ray.shutdown()  # what came up by half
            if address is not None or time.monotonic() + _AGAIN_S > until:
                raise LayerUnavailable(f"Ray does not start: {type(error).__name__}: {error}") from None
            logger.warning("Ray did not start, and is tried again: %s", error, extra={"action": "ray_start_again"})
            time.sleep(_AGAIN_S)
