"""Starting a stack, finding one that runs, and stopping it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from airside.actors.app import App, CheckedApp
from airside.actors.approvals import Approvals
from airside.actors.client import Stack
from airside.actors.driver import Driver
from airside.actors.executor import ToolExecutor
from airside.actors.fleet import Fleet
from airside.actors.ingress import Ingress
from airside.actors.journal import Journal
from airside.actors.layer import LayerConfig, as_actor
from airside.actors.memory import Memory
from airside.actors.names import NAMESPACE, actor_name
from airside.actors.policy import Policy
from airside.actors.record import read_record, write_record
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.stack.errors import InvalidConfig, LayerUnavailable, Misuse
from airside.stack.keyring import KeyRing

INLINE_BYTES = 4 * 2**20
"""What a Ray call carries up to this size travels in the call itself; larger arguments take the object store.

Ray's own bound is 100 KiB, which a coalesced batch of a hundred steps exceeds: the detour cost a sixth of the
throughput (`benchmarks.governed_steps`).
"""

CONNECT_S = 5.0
"""Ray itself tries for minutes; what does not take a connection in this time is gone, or too far away to work with."""

START_S = 120.0
"""Longest a stack may take to start; a cold machine needs about 15 s."""


def start(app: App, *, address: str | None = None, **options: Any) -> Stack:
    """Start a stack and return it; as a context manager it stops at the end of the block.

    Without `address` it starts a Ray of its own on this machine.  With one (`"auto"` or `host:port`) it runs on that
    cluster, detached: it outlives this process, and `connect` finds it again; then leaving the block leaves it
    running, and `Stack.shutdown()` ends it.  `options` are the fields of `Settings` (`state_dir`, `mode`, ...).

    Raises `InvalidConfig` for an app that does not hold together, `Misuse` if the stack runs already, and
    `LayerUnavailable` if a layer does not come up; then nothing is left running.
    """
    settings = _settings(options)
    checked = app.checked()
    state_dir = settings.state_dir.resolve()
    keys = KeyRing.open(state_dir / "keys")
    owns_ray = _connect_ray(address, own=address is None)
    record: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "job_schema": app.job_inputs.model_json_schema() if app.job_inputs else None,
        "stack": settings.stack,
        "address": ray.get_runtime_context().gcs_address,
        # A Ray of our own asks for its token, and others do not present it unless they are told to.
        "auth_mode": os.environ.get("RAY_AUTH_MODE", "token" if address is None else ""),
    }
    if _exists(settings):
        raise Misuse(f"stack {settings.stack!r} runs already: use airside.connect(), or shut it down first")
    stack = Stack(settings, keys, state_dir, owns_ray=owns_ray, stops=owns_ray, record=record)
    try:
        _start_layers(checked, settings, state_dir, keys)
    except BaseException:
        stack.shutdown()
        raise
    write_record(state_dir, record)
    return stack


def connect(state_dir: str | Path = ".airside", *, address: str | None = None, stack: str | None = None) -> Stack:
    """Attach to a stack that runs, from any process of its machine (or, with `address` and `stack`, of its cluster).

    Raises `Misuse` if there is none.
    """
    folder = Path(state_dir).resolve()
    try:
        record = read_record(folder)
    except Misuse:
        if address is None:
            raise
        record = {}
    found = address or record.get("address")
    if found is None:
        raise Misuse(f"no stack is up in {folder}: start one (`airside up`), or name another state directory")
    if not _answers(found):
        raise Misuse(f"the stack of {folder} is gone (nothing answers at {found}): start it again (`airside up`)")
    settings = _settings({"stack": stack or record.get("stack", "default"), "state_dir": folder})
    owns_ray = _connect_ray(found, own=False, auth_mode=record.get("auth_mode", ""))
    if not _exists(settings):
        if owns_ray:
            ray.shutdown()
        raise Misuse(f"stack {settings.stack!r} does not run at {found}")
    keys = KeyRing.open(folder / "keys") if (folder / "keys").is_dir() else None
    return Stack(settings, keys, folder, owns_ray=owns_ray, stops=False, record=record)


def _answers(address: str) -> bool:
    """Whether anything listens at `host:port`; of what is no such address, Ray says what is wrong."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or ray.is_initialized():
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def _settings(options: dict[str, Any]) -> Settings:
    try:
        return Settings(**options)
    except ValueError as error:
        raise InvalidConfig(f"settings: {error}") from None


def _connect_ray(address: str | None, *, own: bool, auth_mode: str = "") -> bool:
    """Connect this process to Ray; return whether it is ours to disconnect."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if auth_mode and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = auth_mode
        Config.initialize("")  # Ray read its environment when it was imported; this is how it does so again
    local: dict[str, Any] = {}
    if own:
        local = {"num_cpus": os.cpu_count(), "include_dashboard": False}
        local["_system_config"] = {"max_direct_call_object_size": INLINE_BYTES}
    try:
        ray.init(
            address="local" if own else address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
    except ConnectionError as error:
        raise Misuse(f"no Ray cluster answers at {address}: {error}") from None
    except Exception as error:  # Ray raises bare exceptions when its own processes do not come up
        raise LayerUnavailable(f"Ray does not start: {error}") from None
    return True


def _exists(settings: Settings) -> bool:
    try:
        ray.get_actor(actor_name(settings.stack, "driver"), NAMESPACE)
    except ValueError:
        return False
    return True


def _begin(actors: list[Any]) -> None:
    """Have every layer begin; an answer that got lost on the way is asked for again."""
    until = time.monotonic() + START_S
    while True:
        try:
            ray.get([actor.begin.remote() for actor in actors], timeout=max(0.0, until - time.monotonic()))
            return
        except ActorUnavailableError:
            time.sleep(0.1)


def _start_layers(checked: CheckedApp, settings: Settings, state_dir: Path, keys: KeyRing) -> None:
    app, version = checked.app, checked.app.version
    plain = LayerConfig(settings, state_dir)
    sealed = replace(plain, seal_key=keys.seal)
    has_memory = checked.memory is not None
    runtime_app = RuntimeApp(
        checked.agents, checked.routes, checked.specs, has_memory, version, checked.traced, checked.metered
    )

    def make(kind: type, layer: str, *args: Any, key: str = "") -> Any:
        options: dict[str, Any] = {
            "name": actor_name(settings.stack, layer, key),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,
            "num_cpus": 0,
            "max_concurrency": 10_000,
            "enable_task_events": settings.task_events,
        }
        # Journal and Memory have their files on this node's disk, and without the journal the others are nothing.
        # Executors are spread: they do the work.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options["scheduling_strategy"] = "SPREAD" if kind is ToolExecutor else here
        return as_actor(kind).options(**options).remote(*args)

    made = [make(Journal, "journal", plain, keys.chain)]
    made.append(make(Policy, "policy", sealed, checked.bundle, checked.specs, checked.directory))
    made += [
        make(ToolExecutor, "executor", sealed, app.tools, has_memory, key=str(i)) for i in range(settings.executors)
    ]
    if has_memory:
        made.append(make(Memory, "memory", sealed, app.embedder, checked.memory))
    made.append(make(Approvals, "approvals", sealed, keys.webhook.decode(), app.on_approval))
    fleet = Fleet(plain, runtime_app)
    made.append(make(Driver, "driver", sealed, checked.directory, sorted(checked.routes), version, fleet))
    made.append(make(Ingress, "ingress", sealed, checked.directory, keys.issuer_public_pem))
    try:
        _begin(made)
    except GetTimeoutError:
        raise LayerUnavailable(f"the stack did not start in {START_S:.0f} s") from None
    except (RayActorError, RayError) as error:
        cause = getattr(error, "cause", None) or error
        if "Could not set lock" in str(cause):
            raise Misuse(f"another process has {state_dir / 'journal.duckdb'} open: is a stack up there?") from None
        raise LayerUnavailable(f"a layer did not start: {type(cause).__name__}: {cause}") from None
