"""One process, its Ray and its stacks: each stack its own, none taken along by another, and waiting without threads."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import airside
from airside.actors.client.client import Stack
from airside.actors.client.ray_membership import list_stacks
from airside.stack.errors import Misuse
from tests.apps.notes import create_app
from tests.on_ray import BOUND_S, ROOT, a_stack, call, submit, waiting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on a Ray that the process had before."""
    with a_stack(tmp_path_factory.mktemp("process"), "process", executors=1) as started:
        yield started


# Waiting.


def test_waiting_takes_no_thread_of_the_loops_pool(stack: Stack) -> None:
    async def all_of_it() -> list[bool]:
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        runs = [
            await stack.asubmit(
                "r", tenant="acme", principal="ana", inputs={"actions": [call("pay", to=f"p{i}", amount=2)]}
            )
            for i in range(8)
        ]

        def approve_all() -> None:
            for run in runs:
                stack.approve(waiting(stack, run.run_id).approval_id, principal="lea")

        async with asyncio.timeout(BOUND_S):
            *results, _ = await asyncio.gather(*runs, asyncio.to_thread(approve_all))
        return [result.ok for result in results]

    assert asyncio.run(all_of_it()) == [True] * 8


def test_who_stops_waiting_is_free_at_once_and_the_run_goes_on(stack: Stack) -> None:
    run = submit(stack, call("pay", to="later", amount=2))
    waiting(stack, run.run_id)
    job = {
        "request": "r",
        "tenant": "acme",
        "principal": "ana",
        "inputs": {"actions": [call("pay", to="batch", amount=2)]},
    }

    async def wait_a_little() -> None:
        for work in (run, stack.amap([job], progress=False)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(work, 0.3)

    asyncio.run(wait_a_little())
    assert stack.ended([run.run_id]) == set()
    stack.kill(all=True)
    assert not run.result(timeout=BOUND_S).ok


# Whose stack it is.


def test_a_stack_on_a_ray_that_was_there_ends_with_its_block(stack: Stack, tmp_path: Path) -> None:
    import ray

    for _ in range(2):
        with airside.start(create_app(tmp_path), state_dir=tmp_path, stack="block", executors=1) as block:
            assert submit(block, call("look", topic="x")).result(timeout=BOUND_S).ok
            assert (tmp_path / "stack.json").exists()
        assert "block" not in list_stacks() and not (tmp_path / "stack.json").exists()
    assert ray.is_initialized() and submit(stack, call("look", topic="x")).result(timeout=BOUND_S).ok


def test_a_directory_whose_stack_runs_is_not_started_again(stack: Stack) -> None:
    with pytest.raises(Misuse, match=rf"the stack of {stack.state_dir} runs already: use airside\.connect\("):
        airside.start(create_app(stack.state_dir), state_dir=stack.state_dir)


def test_a_name_that_another_directorys_stack_has_is_refused_saying_so(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=rf"'process' runs already on this Ray, with its state in {stack.state_dir}"):
        airside.start(create_app(tmp_path), state_dir=tmp_path, stack="process")


def test_another_ray_is_not_taken_for_this_one(stack: Stack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        address = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        for attach in (
            lambda: airside.connect(tmp_path, address=address),
            lambda: airside.start(create_app(tmp_path), state_dir=tmp_path, address=address),
        ):
            with pytest.raises(Misuse, match=rf"is in the Ray at .* cannot be in that at {address}"):
                attach()


_FORGETFUL = """
import sys
import airside
from pathlib import Path
from tests.apps.notes import create_app

if __name__ == "__main__":
    stack = airside.start(create_app(Path(sys.argv[1])), state_dir=sys.argv[1], executors=1)
    attached = airside.connect(sys.argv[1]) if sys.argv[2:] else stack
    print(attached.query("SELECT count(*) FROM runs"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("also", [(), ("connect",)], ids=["start", "connect"])
def test_a_script_that_forgets_to_end_its_stack_ends_it_and_says_nothing_of_it(
    tmp_path: Path, also: tuple[str, ...]
) -> None:
    """Nor of what it is attached to by a second way."""
    command = [sys.executable, "-c", _FORGETFUL, tmp_path, *also]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "leak" not in done.stderr + done.stdout, done.stderr
    assert not (tmp_path / "stack.json").exists()


@pytest.mark.slow
def test_a_stack_that_has_its_name_from_another_is_not_reached_by_it(stack: Stack, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = airside.start(create_app(one), state_dir=one, stack="same", executors=1)
    attached = airside.connect(one)
    first.shutdown()
    with airside.start(create_app(two), state_dir=two, stack="same", executors=1) as second:
        for reach in (attached.verify, attached.switches, attached.approvals):
            with pytest.raises(Misuse, match=rf"is of another one, with its state in {two}"):
                reach()
        assert attached.status() == {}
        attached.shutdown()
        assert submit(second, call("look", topic="x")).result(timeout=BOUND_S).ok


def test_whatever_is_asked_of_a_closed_stack_is_misuse(stack: Stack) -> None:
    attached = airside.connect(stack.state_dir)
    attached.close()
    attached.close()
    for ask in (
        attached.status,
        attached.approvals,
        attached.verify,
        attached.in_doubt,
        lambda: attached.kill(all=True),
        lambda: attached.memory,
        lambda: submit(attached),
        lambda: attached.map([{"request": "r", "tenant": "acme", "principal": "ana"}]),
        lambda: attached.handle("run_" + "0" * 24).result(),
        lambda: asyncio.run(attached.asubmit("r", tenant="acme", principal="ana")),
    ):
        with pytest.raises(Misuse, match="this stack is closed"):
            ask()
    assert stack.status()


ALONE = """
import json, sys
from pathlib import Path
import ray
import airside
from airside.actors.client.ray_membership import list_stacks
from airside.stack.errors import Misuse
from tests.apps.notes import create_app
from tests.on_ray import call, ledger_of, submit

def note(stack, text):
    assert submit(stack, call("note", text=text)).result(timeout=60).ok

def refused(ask):
    try:
        ask()
    except Misuse:
        return not ray.is_initialized()

one, two = Path(sys.argv[1]), Path(sys.argv[2])
a = airside.start(create_app(one), state_dir=one, executors=1)
b = airside.start(create_app(two), state_dir=two, executors=1)
for stack, text in ((a, "a"), (b, "b"), (airside.connect(one), "also a"), (airside.connect(two), "also b")):
    note(stack, text)
    if text.startswith("also"):
        stack.close()
said = {"both": len(list_stacks()), "a": ledger_of(a).texts(""), "b": ledger_of(b).texts("")}
a.shutdown()
note(b, "b after a")
said["left"] = [stack == b.cell.stack for stack in list_stacks()]
b.close()
said["closed"] = [refused(a.status), refused(b.status), refused(b.verify)]
said["records"] = [path.joinpath("stack.json").exists() for path in (one, two)]
print(json.dumps(said))
"""


@pytest.mark.slow
def test_two_stacks_of_a_process_are_two_and_the_last_takes_ray_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "one"), str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * BOUND_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "both": 2,
        "a": ["a", "also a"],
        "b": ["also b", "b"],
        "left": [True],
        "closed": [True] * 3,
        "records": [False, False],
    }
