"""A client's connection to one stack: its layers, found by name and known to be that stack's."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util import list_named_actors

from airside.actors.client.ray_membership import Membership
from airside.actors.client.steps import ActorLookup, Answer, Pause, Steps, drive
from airside.actors.process.stopping import close_layers, end_actors
from airside.actors.rpc.layer import StackIdentity
from airside.actors.rpc.methods import BODIES, ROWS, Method, NamedQuery, Reply, Request, Rows
from airside.actors.rpc.names import NAMESPACE, CellAddress
from airside.actors.rpc.serving import not_refused
from airside.stack.errors import InvalidInput, LayerUnavailable, Misuse, text_of

_AGAIN_S = 0.1
_SAY_WHOSE = ("driver", "journal", "policy", "approvals", "ingress")
"""The layers that are believed: in a runtime and in an executor other people's code runs."""

_LOOK_S = 5.0
"""Longest a look at a layer takes, which a busy one answers beside its work."""


class Connection:
    """Made by `start` and `connect`; used by a `Stack` for all it asks.

    Every layer is asked whose it is when it is first found and after it was lost: a name is no proof, since another
    stack may have it by now.  Raises `Misuse` once it is closed, or if the process has left the stack's Ray.
    """

    def __init__(self, cell: CellAddress, stack_id: str, member: Membership) -> None:
        self.cell = cell
        self.member = member
        self.stack_id = stack_id
        self._known: dict[str, Any] = {}
        self._closed = False

    def check_open(self) -> None:
        """Raise `Misuse` if nothing can be asked any more."""
        if self._closed or not ray.is_initialized():
            raise Misuse("this stack is closed: start or connect to it again")
        if not self.member.is_current:
            here = ray.get_runtime_context().gcs_address
            raise Misuse(
                f"this process has left the Ray of this stack ({self.member.address}) and is in that at {here}: "
                "connect to the stack again"
            )

    def call(self, method: Method[Request, Reply], request: Request, *, within_s: float | None = None) -> Steps[Reply]:
        """Return the reply to a request; as `call_each`."""
        (reply,) = yield from self.call_each(method, [request], within_s=within_s)
        return reply

    def call_each(
        self, method: Method[Request, Reply], requests: Sequence[Request], *, within_s: float | None = None
    ) -> Steps[list[Reply]]:
        """Send requests in one call, waiting through a restart of their layer, and return their replies.

        Raises `InvalidInput` for what cannot be sent, `LayerUnavailable`, `TimeoutError` if `within_s` is given and
        over before there is an answer, and `ItemFailed` for a request the layer refused without an answer of its own.
        """
        assert method.retry, f"{method} may not be sent twice"
        batch = encoded(method, requests)
        answers = yield from self._over_ray(method.layer, "serve", method.number, batch, True, within_s=within_s)
        return [method.reply.decode(not_refused(answer)) for answer in answers]

    def ask(self, method: Method[Request, Reply], request: Request) -> Reply:
        """Return the reply to a request, waiting in this thread."""
        return drive(self.call(method, request))

    def _over_ray(self, layer: str, method: str, *args: Any, within_s: float | None = None) -> Steps[Any]:
        """Call a Ray method of a layer's actor, waiting through its restart.

        Raises `TimeoutError` if `within_s` is given and over before there is an answer.
        """
        name = self.cell.actor_name(layer)
        until = time.monotonic() + self.cell.layer_patience_s
        ends = None if within_s is None else time.monotonic() + within_s
        while True:
            self.check_open()
            left = None if ends is None else max(0.0, ends - time.monotonic())
            try:
                handle = yield from self._found(name, left)
                return (yield Answer(getattr(handle, method).remote(*args), left))
            except TimeoutError:
                raise TimeoutError(f"{name}.{method}: no answer in {within_s:.1f} s") from None
            except (RayActorError, ValueError) as error:
                self._known.pop(name, None)
                if ends is not None and time.monotonic() > ends:
                    raise TimeoutError(f"{name}.{method}: no answer in {within_s:.1f} s") from None
                if time.monotonic() > until:
                    raise LayerUnavailable(f"{name}.{method}: {text_of(error, 300)}") from None
                yield Pause(_AGAIN_S)
            except RayError as error:
                cause = getattr(error, "cause", None) or error
                raise LayerUnavailable(f"{name}.{method}: {text_of(cause, 500)}") from None

    def _found(self, name: str, within_s: float | None) -> Steps[Any]:
        """Return a layer's handle, asked for once: Ray's control service may be away when it matters."""
        if name not in self._known:
            handle = yield ActorLookup(name)
            self._check(name, (yield Answer(handle.whose.remote(), within_s)))
            self._known[name] = handle
        return self._known[name]

    def _check(self, name: str, whose: StackIdentity) -> None:
        if self.stack_id and whose.stack_id != self.stack_id:
            raise Misuse(
                f"the stack is gone, and {name} is of another one, with its state in {whose.state_dir}: "
                "connect to the one you mean"
            )

    def identify(self) -> None:
        """Have the stack say whose it is; raise `Misuse` if it is another than is meant.

        Raises `LayerUnavailable` if nobody knows whose it is and it does not answer.  One that is known already and
        stands still may be connected to: every layer that answers is asked anyway.
        """
        try:
            whose: StackIdentity = drive(self._over_ray("driver", "whose", within_s=_LOOK_S))
            self.stack_id = whose.stack_id
        except TimeoutError as error:
            if not self.stack_id:
                raise LayerUnavailable(f"the stack does not say whose it is: {error}") from None

    def stats(self, layers: Sequence[str], *, within_s: float) -> dict[str, dict[str, Any]]:
        """Return what layers say of themselves, all asked at once; one that does not answer in time is down."""
        self.check_open()
        asked: dict[str, list[Any]] = {}
        for layer in layers:
            with contextlib.suppress(RayError, ValueError):
                actor = ray.get_actor(self.cell.actor_name(layer), NAMESPACE)
                asked[layer] = [actor.whose.remote(), actor.stats.remote()]
        refs = [ref for pair in asked.values() for ref in pair]
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=within_s)[0]) if refs else set()
        return {layer: self._stats_of(asked.get(layer), ready, within_s) for layer in layers}

    def _stats_of(self, asked: list[Any] | None, ready: set[Any], within_s: float) -> dict[str, Any]:
        if asked is None:
            return {"down": "it is not there"}
        if not ready.issuperset(asked):
            return {"down": f"no answer in {within_s:g} s"}
        try:
            whose, stats = ray.get(asked)
        except RayError as error:
            return {"down": type(error).__name__}
        is_ours = not self.stack_id or whose.stack_id == self.stack_id
        return dict(stats) if is_ours else {"down": "it is of another stack"}

    def has(self, layer: str) -> bool:
        """Whether the stack has a layer."""
        return self.cell.actor_name(layer) in self._known or layer in self.actors()

    def actors(self) -> dict[str, Any]:
        """Return the handles of the stack's actors by their names within it; none of another stack's."""
        self.check_open()
        prefix = self.cell.prefix
        found = {}
        for entry in list_named_actors(all_namespaces=True):
            name = entry["name"]
            if entry["namespace"] == NAMESPACE and name.startswith(prefix):
                with contextlib.suppress(ValueError):
                    found[name.removeprefix(prefix)] = ray.get_actor(name, NAMESPACE)
        return found if self._are_ours(found) else {}

    def _are_ours(self, found: dict[str, Any]) -> bool:
        """Whether the actors of our name are our stack's: a stack has its name as long as any of them is there."""
        if not self.stack_id:
            return True
        asked = [found[layer].whose.remote() for layer in _SAY_WHOSE if layer in found]
        ready, _ = ray.wait(asked, num_returns=1, timeout=_LOOK_S) if asked else ([], [])
        for ref in ready:
            with contextlib.suppress(RayError):
                whose: StackIdentity = ray.get(ref)
                return whose.stack_id == self.stack_id
        return True  # none answers: they stand still, and whoever stops them by this name means them

    def stop(self) -> None:
        """Stop the stack's actors; those of another stack stay."""
        if self._closed or not self.member.is_current:
            return
        close_layers(self.actors())
        end_actors(self.actors())

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        atexit.unregister(self.close)
        if not self._closed:
            self._closed = True
            self._known.clear()
            self.member.leave()


def encoded(method: Method[Request, Any], requests: Sequence[Request]) -> list[bytes]:
    """Return requests as they travel; raise `InvalidInput` for what cannot be sent."""
    try:
        return [method.request.encode(request) for request in requests]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{method}: what was given cannot be sent: {text_of(error, 300)}") from None


class LiveJournal:
    """`ReadableJournal`, of a stack that is up."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""
        return self._connection.ask(BODIES, list(streams))

    def read(self, name: str, *parameters: Any) -> Rows:
        """Return the rows of a named query."""
        return self._connection.ask(ROWS, NamedQuery(name, parameters))
