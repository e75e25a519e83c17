"""A layer whose loop is held is seen, killed and restarted, and everything that waited for it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from airside import ReasonCode
from airside.actors.client.client import Stack
from airside.actors.rpc.names import NAMESPACE
from tests.on_ray import BOUND_S, a_stack, call, events_of, pids, submit, until

pytestmark = pytest.mark.ray

STALL_S = 2.0
LAYERS = ["policy", "journal", "approvals", "ingress", "intake", "memory", "driver", "executor/0"]


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose layers may be held for two seconds."""
    folder = tmp_path_factory.mktemp("layers-held")
    with a_stack(folder, "layers-held", memory=True, executors=1, layer_stall_s=STALL_S) as started:
        # A layer is looked after within seconds of its start, once it has shown itself.
        assert submit(started, call("note", text="first")).result(timeout=BOUND_S).ok
        yield started


def actor(stack: Stack, layer: str) -> Any:
    """Return a layer's handle."""
    return ray.get_actor(stack.cell.actor_name(layer), NAMESPACE)


def hold(stack: Stack, layer: str) -> int:
    """Hold a layer's loop for ever, as soon as its Warden looks after it; return its process."""
    (pid,) = pids(stack, layer)
    (warden,) = (handle for name, handle in stack._connection.actors().items() if name.startswith("warden"))

    def is_watched() -> bool:
        return bool(
            ray.get(warden.__ray_call__.remote(lambda self: layer in self._layers and self._layers[layer].where.pid))
            == pid
        )

    if not layer.startswith("executor"):  # the driver has those looked after
        until(is_watched, f"{layer} to be looked after")

    def hold(self: Any) -> None:  # Ray calls it in a thread of its own, not in the layer's
        self._beating.get_loop().call_soon_threadsafe(lambda: time.sleep(1e6))

    ray.get(actor(stack, layer).__ray_call__.remote(hold))
    return pid


def told(stack: Stack) -> list[str]:
    """Return what the driver tells of layers that were held."""
    held: list[str] = stack.status()["driver"]["layers_held"]
    return held


def restarted(stack: Stack, layer: str, held: int) -> None:
    """Wait until a layer is another process than the one that was held."""
    until(lambda: held not in (now := pids(stack, layer)) and now, f"{layer} to be another process")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_is_held_is_named_and_restarted_and_runs_go_on(stack: Stack, layer: str) -> None:
    held = hold(stack, layer)
    result = submit(stack, call("note", text=f"beside {layer}")).result(timeout=BOUND_S)
    assert result.ok, result
    restarted(stack, layer, held)
    if not layer.startswith("executor"):
        line = until(lambda: [line for line in told(stack) if line.startswith(layer)], "it to be told of")[-1]
        assert "nobody known" in line and "test_ray_layers_held.py:" in line, line
    assert stack.verify() == []


def test_orders_are_answered_though_the_gate_is_held(stack: Stack) -> None:
    held = hold(stack, "policy")
    waits = submit(stack, call("note", text="waits for the gate"))
    until(lambda: events_of(stack, waits.run_id, "StepDecided"), "it to wait for the gate")
    assert stack.kill(run=waits.run_id, why="by hand") == 1
    stack.switch_off(tool="note", why="to see")  # confirmed by the gate that took the held one's place
    until(lambda: held not in pids(stack, "policy") and pids(stack, "policy"), "the gate to be another process")
    off = submit(stack, call("note", text="off")).result(timeout=BOUND_S)
    assert off.reason_code is ReasonCode.SWITCHED_OFF
    stack.switch_on(tool="note")


def test_a_run_whose_requests_hold_the_gate_twice_is_ended_and_nobody_elses(stack: Stack) -> None:
    """It is as a pattern that backtracks would be: each gate that it comes to is held by it."""
    _poison(stack)
    (first,) = pids(stack, "policy")
    guilty = submit(stack, *[call("note", text="poison", pace_ms=400)] * 25)
    others = [submit(stack, call("note", text=f"harmless {i}"), who="bob@beta") for i in range(3)]
    restarted(stack, "policy", first)
    _poison(stack)
    (second,) = pids(stack, "policy")
    others.append(submit(stack, call("note", text="harmless again"), who="bob@beta"))
    restarted(stack, "policy", second)
    _poison(stack)  # should anybody send the run's request again
    result = guilty.result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.KILLED_RUNAWAY and "held policy" in result.detail, result
    assert all(other.result(timeout=BOUND_S).ok for other in others)
    assert len([line for line in told(stack) if f"by {guilty.run_id}" in line and "in held" in line]) == 2, told(stack)
    assert stack.verify() == []


def _poison(stack: Stack) -> None:
    """Let the gate that is there now, or comes up next, never come back from a request that speaks of poison."""

    def poison(self: Any) -> None:
        from airside.stack.policy.gate import Gate

        decide = Gate.decide

        def held(gate: Gate, request: Any) -> Any:
            while b"poison" in request.arguments:
                pass
            return decide(gate, request)

        Gate.decide = held  # type: ignore[method-assign]

    def is_done() -> bool:
        try:
            ray.get(actor(stack, "policy").__ray_call__.remote(poison), timeout=1)
        except (RayError, TimeoutError):
            return False
        return True

    until(is_done, "the gate to be poisoned")
