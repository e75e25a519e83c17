"""The one Ray of a process: joined with a second try, shared by its stacks, and left with the last of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airside.actors.client import ray_membership
from airside.stack.errors import LayerUnavailable, Misuse


class FakeRay:
    """A Ray that comes up after so many tries."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.address = ""
        self.inits: list[str] = []
        self.shutdowns = 0
        self.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")

    def is_initialized(self) -> bool:
        """Whether the process is in it."""
        return bool(self.address)

    def get_runtime_context(self) -> Any:
        """Return where it is."""
        assert self.address, "a Ray would be started"
        return SimpleNamespace(gcs_address=self.address)

    def init(self, *, address: str, **_: Any) -> None:
        """Join."""
        self.inits.append(address)
        if self.failures:
            raise self.failures.pop(0)
        self.address = "10.0.0.7:6379"

    def shutdown(self) -> None:
        """Leave."""
        self.address = ""
        self.shutdowns += 1


class FakeTime:
    """Time that passes as it is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """Return it."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let it pass; a try that failed took Ray half a minute."""
        self.now_s += seconds + 30


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process that is in no Ray, on which no stack of others is."""
    world = SimpleNamespace(ray=FakeRay(), others=set())
    monkeypatch.setattr(ray_membership, "ray", world.ray)
    monkeypatch.setattr(ray_membership, "time", FakeTime())
    monkeypatch.setattr(ray_membership, "_now", None)
    monkeypatch.setattr(ray_membership, "list_stacks", lambda: world.others)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return world


LATE = Exception("The current node timed out during startup.")


def test_a_ray_that_does_not_come_up_is_tried_again(world: Any) -> None:
    world.ray.failures = [LATE, LATE]
    ray_membership.join_ray(None)
    assert world.ray.inits == ["local"] * 3


def test_a_ray_that_never_comes_up_is_given_up_with_what_it_says(world: Any) -> None:
    world.ray.failures = [LATE] * 99
    with pytest.raises(LayerUnavailable, match="Ray does not start: Exception: The current node timed out"):
        ray_membership.join_ray(None)
    assert 2 <= len(world.ray.inits) <= 5 and not world.ray.is_initialized()


def test_a_cluster_that_is_not_there_is_said_at_once(world: Any) -> None:
    world.ray.failures = [ConnectionError("nobody")]
    with pytest.raises(Misuse, match=r"no Ray cluster answers at 10\.0\.0\.9:1: nobody"):
        ray_membership.join_ray("10.0.0.9:1")
    assert len(world.ray.inits) == 1


def test_an_empty_address_is_no_address(world: Any) -> None:
    with pytest.raises(Misuse, match="address: it is empty"):
        ray_membership.join_ray(" ")
    assert not world.ray.inits


def test_ray_is_left_with_the_last_stack(world: Any) -> None:
    one, two = ray_membership.join_ray(None), ray_membership.join_ray(None)
    assert not one.ends_ray
    one.leave()
    one.leave()
    assert world.ray.shutdowns == 0 and two.ends_ray
    two.leave()
    assert world.ray.shutdowns == 1


def test_a_ray_that_was_there_before_is_never_left(world: Any) -> None:
    world.ray.address = "10.0.0.7:6379"
    member = ray_membership.join_ray(None)
    assert not member.ends_ray
    member.leave()
    assert world.ray.inits == [] and world.ray.shutdowns == 0


def test_a_ray_that_another_process_has_a_stack_on_is_not_shut_down(world: Any) -> None:
    member = ray_membership.join_ray(None)
    world.others = {"theirs"}
    member.leave()
    assert world.ray.shutdowns == 0


def test_a_cluster_is_left_whoever_else_is_on_it(world: Any) -> None:
    member = ray_membership.join_ray("10.0.0.7:6379")
    world.others = {"theirs"}
    assert not member.ends_ray
    member.leave()
    assert world.ray.shutdowns == 1


def test_a_stack_of_a_ray_that_was_left_does_not_touch_the_next_one(world: Any) -> None:
    old = ray_membership.join_ray(None)
    world.ray.address = "10.0.0.7:7000"  # the caller shut the first down, and started another
    assert not old.is_current
    old.leave()
    assert world.ray.shutdowns == 0


@pytest.mark.parametrize(
    ("address", "is_same"),
    [
        ("10.0.0.7:6379", True),
        ("127.0.0.1:6379", True),
        ("localhost:6379", True),
        ("auto", True),
        ("10.0.0.7:6380", False),
        ("10.0.0.8:6379", False),
        ("ray://10.0.0.7:10001", False),
    ],
)
def test_a_process_is_in_one_ray_only(world: Any, address: str, is_same: bool) -> None:
    world.ray.address = "10.0.0.7:6379"
    if is_same:
        assert ray_membership.join_ray(address).address == "10.0.0.7:6379"
    else:
        with pytest.raises(Misuse, match=r"in the Ray at 10\.0\.0\.7:6379 and cannot be in that at"):
            ray_membership.join_ray(address)


@pytest.mark.parametrize("is_kernel", [True, False])
def test_a_kernel_that_is_restarted_ends_without_a_dump_of_its_frames(
    is_kernel: bool, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray asks for it when it is joined; in a script it is as Ray has it."""
    monkeypatch.setattr(ray_membership.ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", False)
    monkeypatch.setattr(ray_membership, "is_in_notebook", lambda: is_kernel)
    ray_membership.join_ray(None)
    assert ray_membership.ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER is is_kernel
