"""Asking a topology: whatever its code does, the run gets a route the journal can hold, or why there is none."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from airside.stack.canonical import check_bounds, parse_bounded
from airside.stack.cycle.agent_call import Pulse
from airside.stack.errors import InvalidInput, plain, text_of
from airside.stack.ids import RunId
from airside.stack.input.error_places import describe_error
from airside.stack.reasons import ReasonCode
from airside.stack.run.topology import Done, FanOut, GiveUp, Route, Topology, TopologyState, Visit
from airside.stack.schema.toolspec import MAX_OUTPUT_BYTES
from airside.stack.values import MAX_REQUEST_BYTES, MAX_REQUEST_CHARS

MAX_BRANCHES = 1_000
"""Of one fan-out: far more than a run has steps to share, and each is a run that is journaled."""

MAX_FAN_OUT_BYTES = 4 * MAX_REQUEST_BYTES
"""Of a fan-out's branches together, as journaled: the request's text once for each of many, or inputs of their own."""

_MAX_ERROR_CHARS = 2_000


class RouteError(NamedTuple):
    """Why a topology gave no route."""

    reason: ReasonCode
    error: str


class RouteNames(NamedTuple):
    """What a route may name, and whether memory can be asked."""

    agents: Collection[str]
    routes: Collection[str]
    memory: bool


def next_route(
    topology: Topology, state: TopologyState, names: RouteNames, run_id: RunId, pulse: Pulse
) -> Route | RouteError:
    """Return where a run goes next; nothing that a topology returns, raises or asks to end leaves its run."""
    pulse.enter(run_id)
    try:
        return _existing(_validate_route(topology.next_step(state)), names)
    except LookupError as error:
        return RouteError(ReasonCode.UNKNOWN_ROUTE_MODE, plain(error, _MAX_ERROR_CHARS))
    except InvalidInput as error:
        return RouteError(ReasonCode.INTERNAL_ERROR, text_of(error, _MAX_ERROR_CHARS))
    except BaseException as error:  # an exit or an interrupt, too: the process is other runs' as well
        return RouteError(ReasonCode.INTERNAL_ERROR, describe_error(error, topology.next_step)[:_MAX_ERROR_CHARS])
    finally:
        pulse.leave()


def _validate_route(route: object) -> Route:
    """Return a route that holds only JSON within bounds; raise `InvalidInput` otherwise."""
    where = type(route).__name__
    if isinstance(route, Done):
        check_bounds(route.answer, where="Done: answer")
    elif isinstance(route, Visit):
        _check_text(route.query, "Visit: query")
        if type(route) is Visit and type(route.agent) is str and type(route.query) in (str, type(None)):
            return route  # nothing of it can change, and it is what every step begins with
    elif isinstance(route, GiveUp):
        _check_text(route.detail, "GiveUp: detail")
    elif isinstance(route, FanOut):
        _check_branches(route)
    else:
        raise InvalidInput(f"a topology returns Visit, FanOut, Done or GiveUp, not {where}")
    most = MAX_FAN_OUT_BYTES if isinstance(route, FanOut) else MAX_OUTPUT_BYTES
    try:
        # A copy that the topology holds no part of, and that the journal can certainly give back.
        data = msgspec.json.encode(route)
        if len(data) > most:
            raise InvalidInput(f"{where}: {len(data):,} bytes are over the bound of {most:,}")
        copy: Route = msgspec.json.decode(data, type=Route)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"{where}: {error}") from None
    return copy


def _check_branches(route: FanOut) -> None:
    if not isinstance(route.branches, tuple | list):
        raise InvalidInput(f"FanOut: branches must be a tuple, not {type(route.branches).__name__}")
    if len(route.branches) > MAX_BRANCHES:
        raise InvalidInput(f"FanOut: {len(route.branches):,} branches are over the bound of {MAX_BRANCHES:,}")
    for index, branch in enumerate(route.branches):
        where = f"FanOut: branch {index}: "
        _check_text(branch.text, f"{where}text")
        inputs = parse_bounded(bytes(branch.inputs), max_bytes=MAX_REQUEST_BYTES, where=f"{where}inputs")
        if inputs is not None and not isinstance(inputs, dict):
            raise InvalidInput(f"{where}inputs must be an object, or null for those of the run")


def _check_text(text: object, where: str) -> None:
    if text is None:
        return
    check_bounds(text, where=where)
    if isinstance(text, str) and len(text) > MAX_REQUEST_CHARS:
        raise InvalidInput(f"{where}: {len(text):,} characters are over the bound of {MAX_REQUEST_CHARS:,}")


def _existing(route: Route, names: RouteNames) -> Route:
    """Return a route whose names all exist; raise `LookupError` for one that does not."""
    if isinstance(route, Visit):
        if route.agent not in names.agents:
            raise LookupError(f"no agent {route.agent!r}")
        return route if names.memory else msgspec.structs.replace(route, query=None)
    if isinstance(route, FanOut):
        missing = [branch.route for branch in route.branches if branch.route not in names.routes]
        if missing or not route.branches:
            raise LookupError(f"no routes {missing}")
    return route
