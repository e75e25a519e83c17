"""Starting a stack, finding one that runs, and stopping it."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from airside.actors.app import App, ValidatedApp
from airside.actors.approvals.approvals import Approvals
from airside.actors.client.client import Stack
from airside.actors.client.connection import Connection
from airside.actors.client.known_principals import write_people
from airside.actors.client.owned_stack import OwnedStack
from airside.actors.client.ray_membership import START_S, is_listening, is_same_ray, join_ray, list_stacks
from airside.actors.client.stack_record import read_record, started_by, this_process, write_record
from airside.actors.driver.driver import Driver
from airside.actors.driver.fleet import Fleet
from airside.actors.executor import ToolExecutor
from airside.actors.http_settings import HttpServer
from airside.actors.ingress import Ingress
from airside.actors.intake import Intake
from airside.actors.issuers import check_issuers
from airside.actors.journal.journal import Journal
from airside.actors.journal.log import is_written
from airside.actors.journal.postgres_session import check_url
from airside.actors.memory import Memory
from airside.actors.models.caller import ModelCaller
from airside.actors.models.keys import keys_of, without
from airside.actors.policy import Policy
from airside.actors.process.logs import link_logs
from airside.actors.rpc.layer import LayerConfig, StackIdentity, as_actor, logger
from airside.actors.rpc.names import NAMESPACE, CellAddress, actor_name
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig, LayerUnavailable, Misuse
from airside.stack.input.yaml_source import explain_fields
from airside.stack.models.snippets import PYTHON_CODE
from airside.stack.reasons import ReasonCode
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.authenticator import Authenticator
from airside.stack.security.keyring import KeyRing
from airside.tools.secrets.providers import EnvironmentSecrets

_WHOSE_S = 5.0
"""Longest a stack on this Ray is waited for to say whose it is."""


_OF_START = Signature(
    [Parameter("app", Parameter.POSITIONAL_OR_KEYWORD)]
    + [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in ("address", *Settings.model_fields)]
)
"""What `start` may be given: its own arguments, and settings."""


@explain_misuse("start", how="start(app, state_dir=...)", signature=_OF_START)
def start(app: App, *, address: str | None = None, **options: Any) -> Stack:
    """Start a stack and return it; as a context manager it stops at the end of the block.

    Without `address` it starts a Ray of its own on this machine, or uses the one this process is in.  With one
    (`"auto"` or `host:port`) it runs on that cluster, detached: it outlives this process, and `connect` finds it again;
    then leaving the block leaves it running, and `Stack.shutdown()` ends it.  `options` are the fields of `Settings`
    (`state_dir`, `mode`, ...).  Two stacks of a process share its Ray, each with a state directory of its own.

    Raises `InvalidConfig` for an app that does not hold together, `Misuse` if the stack runs already or the process is
    in another Ray, and `LayerUnavailable` if a layer does not come up; then nothing is left running.
    """
    if not isinstance(app, App):
        raise InvalidConfig(f"start: {type(app).__name__:.40} is no App: give start(App(agents=..., tools=...))")
    _check_text("start", address=address)
    settings = _settings(options)
    if settings.journal is not None:
        check_url(settings.journal)
    checked = app.checked()
    state_dir = _folder("start", settings.state_dir)
    _check_free(state_dir)
    if checked.http is not None:
        _check_port(checked.http)
    keys = _keys_in(state_dir)
    model_keys, held = keys_of(checked.endpoints), _held(checked)
    with without({*model_keys, *held}):  # a Ray that is started here passes its environment on to every process
        member = join_ray(address)
    try:
        settings = _free_name(settings, state_dir)
    except BaseException:
        member.leave()
        raise
    record: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "stack": settings.stack,
        "address": member.address,
        # A Ray of our own asks for its token, and others do not present it unless they are told to.
        "auth_mode": os.environ.get("RAY_AUTH_MODE", "token" if address is None else ""),
        "starter": this_process(),
    }
    connection = Connection(CellAddress.of(settings), record["id"], member)
    config = LayerConfig(settings, state_dir, stack_id=record["id"], secret_env=(*model_keys, *held))

    def run(ready: ValidatedApp) -> None:
        record["job_schema"] = ready.job_schema
        record["runs"] = ready.described()
        present = replace(config, secret_env=tuple({*config.secret_env, *_held(ready)}))
        driver = _start_layers(ready, present, keys, keys_of(ready.endpoints) or model_keys)
        record["warnings"] = (*ready.warnings, *_without_route(driver))
        for warning in record["warnings"]:
            logger.warning(warning, extra={"action": "app_warning"})
        write_people(state_dir, ready.directory, ready.denied)
        write_record(state_dir, record)
        link_logs(state_dir)

    own = OwnedStack(settings.stack, checked, run, connection.stop, output=settings.show_output)
    stack = Stack(connection, keys, state_dir, stops=address is None, record=record, own=own)
    try:
        run(checked)
    except BaseException:
        stack.shutdown()
        raise
    atexit.register(stack.close)  # of a script that has no `with`; before Ray's own end, which leaves nothing to ask
    return stack


@explain_misuse("connect", how="connect(state_dir)")
def connect(state_dir: str | Path = ".airside", *, address: str | None = None, stack: str | None = None) -> Stack:
    """Attach to a stack that runs, from any process of its machine (or, with `address` and `stack`, of its cluster).

    Raises `Misuse` if there is none, or if this process is in another Ray than the stack, `InvalidConfig` for what is
    no folder, address or name.
    """
    connection, folder, record = _attached("connect", state_dir, address, stack)
    try:
        keys = KeyRing.open(folder / "keys") if (folder / "keys").is_dir() else None
    except BaseException:
        connection.close()
        raise
    return Stack(connection, keys, folder, stops=False, record=record)


def attach(state_dir: str | Path = ".airside") -> Connection:
    """Attach to a stack that runs as `connect`, but without its keys, which are not looked at.

    Who may do what there is then said by credentials alone.
    """
    return _attached("attach", state_dir, None, None)[0]


def _attached(
    what: str, state_dir: str | Path, address: str | None, stack: str | None
) -> tuple[Connection, Path, dict[str, Any]]:
    """Return a connection to a stack that runs, its state directory, and what that has on record of it."""
    _check_text(what, address=address, stack=stack)
    folder = _folder(what, state_dir)
    try:
        record = read_record(folder)
    except Misuse:
        if address is None:
            raise
        record = {}
    if (stack or record.get("stack")) != record.get("stack") or (
        address is not None and not is_same_ray(address, record.get("address", ""))
    ):
        record = {}  # that of another stack
    found = address or record.get("address")
    if found is None:
        raise Misuse(
            f"no stack is up in {folder}: start one (`airside.start(app, state_dir=...)`, or `airside up`), or name "
            "another state directory"
        )
    if not is_listening(found):
        raise Misuse(
            f"the stack of {folder} is gone (nothing answers at {found}): start it again "
            "(`airside.start(app, state_dir=...)`, or `airside up`)"
        )
    settings = _settings({"stack": stack or record.get("stack", "default"), "state_dir": folder})
    member = join_ray(found, auth_mode=record.get("auth_mode", ""))
    connection = Connection(CellAddress.of(settings), str(record.get("id", "")), member)
    try:
        if settings.stack not in list_stacks():
            raise Misuse(f"stack {settings.stack!r} does not run at {found}")
        connection.identify()
    except BaseException:
        connection.close()
        raise
    atexit.register(connection.close)  # of a script that has no `with`: a Ray that is not left ends last, and untidily
    return connection, folder, record


def _check_text(what: str, **given: object) -> None:
    """Raise `InvalidConfig` for what should be a text, where it is given, and is none."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise InvalidConfig(f"{what}: {name} is a text, not of type {type(value).__name__:.40}")


def _folder(what: str, given: object) -> Path:
    """Return the folder that is meant, whole; raise `InvalidConfig` for what names none."""
    if not isinstance(given, str | os.PathLike):
        raise InvalidConfig(f"{what}: state_dir is a path, not of type {type(given).__name__:.40}")
    try:
        return Path(given).expanduser().resolve()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidConfig(f"{what}: state_dir: {error}") from None


def _keys_in(state_dir: Path) -> KeyRing:
    """Return the keys of a state directory, which is made if it is not there; raise `InvalidConfig` if it cannot be."""
    try:
        return KeyRing.open(state_dir / "keys")
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or state_dir}"
        raise InvalidConfig(f"start: state_dir: {state_dir} cannot be a stack's folder ({what})") from None


def _settings(options: dict[str, Any]) -> Settings:
    try:
        return Settings(**options)
    except ValidationError as error:
        raise InvalidConfig(
            "settings: " + "; ".join(explain_fields(error, "Settings", Settings.model_fields))
        ) from None


def _whose(stack: str) -> StackIdentity | None:
    """Return of which stack the actors of a name are; None if there are none."""
    try:
        driver = ray.get_actor(actor_name(stack, "driver"), NAMESPACE)
    except ValueError:
        return None
    try:
        whose: StackIdentity = ray.get(driver.whose.remote(), timeout=_WHOSE_S)
    except (RayError, TimeoutError):
        return StackIdentity("", "a directory it does not say: it does not answer")
    return whose


def _check_free(state_dir: Path) -> None:
    """Raise `Misuse` if another process has a stack up on a directory; before a Ray is started, which takes a while.

    What a process left that died gives way by itself, and soon: the journal waits for that when it begins.
    """
    if is_written(state_dir) and (pid := started_by(state_dir)) not in (0, os.getpid()):
        raise Misuse(
            f"the stack of {state_dir} runs already, in process {pid}: use airside.connect({str(state_dir)!r}), or end "
            "that one first",
            running=str(state_dir),
        )


def _check_port(server: HttpServer) -> None:
    """Raise `Failed` if the port is taken on this machine; before a Ray is started."""
    from airside.actors.http_layer import listening  # what serves HTTP is an extra

    listening(server).socket.close()


def _free_name(settings: Settings, state_dir: Path) -> Settings:
    """Return the settings with a name that no other stack on this Ray has; raise `Misuse` if this stack runs there.

    Only a name that nobody gave is changed.
    """
    there = {name: whose for name in list_stacks() if (whose := _whose(name)) is not None}
    for whose in there.values():
        if whose.state_dir == str(state_dir):
            raise Misuse(
                f"the stack of {state_dir} runs already: use airside.connect({str(state_dir)!r}), or shut it down "
                "first",
                running=str(state_dir),
            )
    other = there.get(settings.stack)
    if other is None:
        return settings
    if "stack" not in settings.model_fields_set:
        own = hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]
        return settings.model_copy(update={"stack": f"{settings.stack}-{own}"})
    raise Misuse(
        f"a stack called {settings.stack!r} runs already on this Ray, with its state in {other.state_dir}: "
        "give start(stack=...) another name, or shut that one down"
    )


def _held(checked: ValidatedApp) -> frozenset[str]:
    """Return the environment variables that hold secrets of tenants."""
    return checked.secrets.variables if isinstance(checked.secrets, EnvironmentSecrets) else frozenset()


def _served(checked: ValidatedApp) -> list[ToolSpec]:
    """Return the tools that may be called through the gateway: all but the one that begins a model's code."""
    return [spec for spec in checked.specs if spec.name != PYTHON_CODE]


def _begin(actors: list[Any]) -> None:
    """Have every layer begin; an answer that got lost on the way is asked for again."""
    until = time.monotonic() + START_S
    while True:
        try:
            ray.get([actor.begin.remote() for actor in actors], timeout=max(0.0, until - time.monotonic()))
            return
        except ActorUnavailableError:
            time.sleep(0.1)


def _start_layers(checked: ValidatedApp, plain: LayerConfig, keys: KeyRing, model_keys: Mapping[str, str]) -> Any:
    """Start every layer and return the driver's actor; raise `Misuse` or `LayerUnavailable` if one does not come up."""
    app, version, settings = checked.app, checked.app.version, plain.settings
    Authenticator(checked.directory, keys.issuer_public_pem)  # what is wrong with the keys is said now, not by an actor
    check_issuers(checked.directory.oidc)
    sealed = replace(plain, seal_key=keys.seal)
    has_memory = checked.memory is not None
    runtime_app = RuntimeApp(
        checked.agents,
        checked.routes,
        checked.specs,
        has_memory,
        version,
        checked.bundle,
        checked.metered,
        asks_models=bool(checked.endpoints),
    )

    def make(kind: type, layer: str, *args: Any, key: str = "", node: str = "") -> Any:
        options: dict[str, Any] = {
            "name": plain.cell.actor_name(layer, key),
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
        here = NodeAffinitySchedulingStrategy(node or ray.get_runtime_context().get_node_id(), soft=False)
        options["scheduling_strategy"] = "SPREAD" if kind is ToolExecutor else here
        return as_actor(kind).options(**options).remote(*args)

    made = [make(Journal, "journal", plain, keys.chain)]
    # An environment is that of this process: others do not have the variables.
    secrets = checked.secrets.read() if isinstance(checked.secrets, EnvironmentSecrets) else checked.secrets
    terms = {kind: resolver.terms for kind, resolver in checked.resolvers.items()}
    made.append(make(Policy, "policy", sealed, checked.bundle, checked.specs, checked.directory, terms))
    made += [
        make(ToolExecutor, "executor", sealed, app.tools, has_memory, checked.resolvers, secrets, key=str(i))
        for i in range(settings.executors)
    ]
    if has_memory:
        made.append(make(Memory, "memory", sealed, app.embedder, checked.memory))
    if checked.endpoints:
        made.append(make(ModelCaller, "models", plain, checked.endpoints, model_keys, keys.blobs))
    made.append(make(Approvals, "approvals", sealed, keys.webhook.decode(), app.on_approval))
    if app.job_inputs is not None:
        made.append(make(Intake, "intake", plain, app.job_inputs))
    fleet = Fleet(plain, runtime_app)
    driver = make(Driver, "driver", sealed, checked.directory, sorted(checked.routes), version, fleet)
    made.append(driver)
    asks = bool(checked.endpoints)
    served = _served(checked) if app.gateway else None
    made.append(
        make(
            Ingress,
            "ingress",
            sealed,
            checked.directory,
            keys.issuer_public_pem,
            checked.labels,
            asks,
            served,
            checked.specs,
        )
    )
    if checked.http is not None:
        from airside.actors.http_layer import HttpLayer  # what serves HTTP is an extra

        nodes = [entry["NodeID"] for entry in ray.nodes() if entry["Alive"]]
        made += [
            make(HttpLayer, "http", plain, checked.http, key=f"{node[:12]}-{index}", node=node)
            for node in nodes
            for index in range(checked.http.per_node)
        ]
    try:
        _begin(made)
    except GetTimeoutError:
        raise LayerUnavailable(f"the stack did not start in {START_S:.0f} s") from None
    except (RayActorError, RayError) as error:
        cause = getattr(error, "cause", None) or error
        if type(cause) is Misuse:  # another process has the journal open
            raise cause from None
        raise LayerUnavailable(f"a layer did not start: {type(cause).__name__}: {cause}") from None
    return driver


def _without_route(driver: Any) -> list[str]:
    """Return what is to be said of the unfinished runs whose routes the app does not have: they end."""
    stats: dict[str, Any] = ray.get(driver.stats.remote())
    return [
        f"the app has no route {route!r:.80}, which unfinished runs ask for ({count}): each ends as "
        f"{ReasonCode.UNKNOWN_ROUTE_MODE} where it is taken up"
        for route, count in stats["without_route"].items()
    ]
