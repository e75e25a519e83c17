"""A pulse says who holds an event loop, from outside the process and without its help."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside.actors.process.pulse import PulseReader, PulseWriter, Where, boot_s, frames, kill, lives
from airside.actors.process.stalls import Reading
from airside.actors.rpc.layer import LayerConfig
from airside.actors.settings import Settings
from airside.actors.wardens.warden import Warden
from airside.stack.cycle.agent_call import call_agent
from airside.stack.ids import RunId, TenantId
from tests.on_ray import until

HOLDER = """
import os, re, signal, sys, time
from airside.actors.process.pulse import PulseWriter

def hold():
    {code}

pulse = PulseWriter(lease_s={lease_s})
pulse.turn()
pulse.enter("run_guilty")
print(*pulse.where, flush=True)
hold()
"""


def holder(code: str, lease_s: float = 0.0) -> Iterator[Where]:
    """Run code that never returns in a process with a pulse; kill it afterwards."""
    program = HOLDER.format(code=code, lease_s=lease_s)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield Where(*map(int, child.stdout.readline().split()))
    finally:
        child.kill()
        child.wait()


held = contextlib.contextmanager(holder)


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "time.sleep(1e6)", "re.compile('(a+)+$').match('a' * 64 + 'b')"],
    ids=["python", "sleep", "C code that holds the interpreter"],
)
async def test_it_names_the_run_and_the_line_whatever_holds_the_interpreter(code: str) -> None:
    for where in holder(code):
        reader = PulseReader(where)
        assert reader.read() == Reading(turns=1, left=0, inside="run_guilty")
        place = await reader.innermost()
        while not place.endswith("in hold"):  # it may not have got there yet
            place = await reader.innermost()
        assert place == "<string>:6 in hold"


def test_a_process_that_is_gone_cannot_be_read() -> None:
    where = next(holder("pass"))
    with pytest.raises(OSError, match="proc"):
        PulseReader(where._replace(pid=2**22 + 1))


async def test_a_later_process_under_the_same_number_is_neither_read_nor_killed() -> None:
    with held("time.sleep(1e6)") as where:
        earlier = where._replace(born=where.born - 1)
        with pytest.raises(ProcessLookupError):
            PulseReader(earlier)
        assert not lives(earlier) and await kill(earlier, 1)
        assert lives(where)
        assert await kill(where, 5) and not lives(where)


def test_who_cannot_look_takes_nobody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file_left(path: str) -> list[str]:
        raise OSError(errno.EMFILE, path)

    with held("time.sleep(1e6)") as where:
        monkeypatch.setattr("airside.actors.process.pulse._stat", no_file_left)
        with pytest.raises(OSError, match="Errno 24"):
            lives(where)


async def test_a_process_that_hides_its_pulse_is_dead_before_it_is_called_so(tmp_path: Path) -> None:
    with held("os.closerange(3, 100); print('hidden', flush=True); time.sleep(1e6)") as where:
        await asyncio.to_thread(until, lambda: not Path(f"/proc/{where.pid}/fd/{where.page_fd}").exists(), "it to hide")
        warden = Warden(LayerConfig(Settings(), tmp_path))
        assert (await warden.beat(0.0, {"a": tuple(where)})).dead == ["a"] and not lives(where)


@pytest.mark.parametrize("code", ["while True: pass", "time.sleep(1e6)", "re.compile('(a+)+$').match('a' * 64 + 'b')"])
async def test_a_layer_whose_loop_is_held_is_killed_and_named_by_a_warden_that_nobody_calls(
    code: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with held(code) as where:
        warden = Warden(LayerConfig(Settings(heartbeat_s=0.02), tmp_path))
        assert await warden.look_after("policy", tuple(where), (0.3, 30.0))
        await asyncio.to_thread(until, lambda: not lives(where), "it to be dead")
        await asyncio.gather(*warden._ending)
    (found,) = (await warden.beat(0.0, {})).held
    assert (found.layer, found.run_id) == ("policy", "run_guilty") and found.where.endswith("in hold")
    assert "policy is held" in caplog.text and "in hold < <string>" in caplog.text
    assert (await warden.beat(0.0, {})).held == []  # it is told once


async def test_a_layer_from_whose_loop_a_thread_keeps_the_interpreter_gets_longer_and_nobody_is_named(
    tmp_path: Path,
) -> None:
    lock = "import threading; threading.Thread(target=re.compile('(a+)+$').match, args=('a' * 64 + 'b',)).start()"
    with held(f"pulse.leave(); {lock}\n    while True: pulse.turn(); time.sleep(0.01)") as where:
        warden = Warden(LayerConfig(Settings(heartbeat_s=0.02), tmp_path))
        assert await warden.look_after("journal", tuple(where), (0.3, 1.2))
        await asyncio.to_thread(until, lambda: not lives(where), "it to be dead")
        await asyncio.gather(*warden._ending)
    (found,) = (await warden.beat(0.0, {})).held
    assert (found.layer, found.run_id) == ("journal", "") and found.held_s >= 1.2


async def test_a_layer_that_turns_is_left_alone_and_one_that_died_is_looked_after_no_more(tmp_path: Path) -> None:
    turning = "i = 0\n    while True: i += 1; pulse.turn(); time.sleep(0.01)"
    with held(turning) as where:
        warden = Warden(LayerConfig(Settings(heartbeat_s=0.02), tmp_path))
        assert await warden.look_after("policy", tuple(where), (0.3, 0.3))
        until_s = boot_s() + 1.0
        await asyncio.to_thread(until, lambda: boot_s() > until_s, "three times its bound to pass")
        assert lives(where) and warden._layers.keys() == {"policy"}
    await asyncio.to_thread(until, lambda: not warden._layers, "it to be forgotten")
    assert (await warden.beat(0.0, {})).held == [] and not await warden.look_after("policy", tuple(where), (0.3, 0.3))


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(1e6)",
        "signal.setitimer(signal.ITIMER_REAL, 0); re.compile('(a+)+$').match('a' * 64 + 'b')",
        "signal.signal(signal.SIGALRM, signal.SIG_IGN); re.compile('(a+)+$').match('a' * 64 + 'b')",
        "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals()); time.sleep(1e6)",
    ],
    ids=["sleep", "another timer", "deaf", "masked"],
)
def test_a_process_whose_lease_nobody_renews_ends_itself_whatever_it_does(code: str) -> None:
    with held(code, lease_s=1) as where:
        until(lambda: not lives(where), "its lease to end", bound_s=10)


def test_the_first_lease_that_is_given_replaces_the_one_a_process_began_with() -> None:
    with held("time.sleep(1e6)", lease_s=60) as where:
        PulseReader(where).extend(boot_s() + 1)
        until(lambda: not lives(where), "the given lease to end", bound_s=10)


def test_a_lease_that_is_renewed_does_not_end_the_process_and_leaves_its_alarms_alone() -> None:
    code = "signal.signal(signal.SIGALRM, lambda *_: print('rang', flush=True)); signal.alarm(2); time.sleep(1e6)"
    with held(code, lease_s=1) as where:
        reader, began = PulseReader(where), boot_s()

        def renewed() -> bool:
            reader.extend(boot_s() + 1)
            return boot_s() > began + 3

        until(renewed, "three leases to pass")
        assert lives(where)
        until(lambda: not lives(where), "its lease to end", bound_s=10)


def test_a_dump_without_the_thread_says_nothing() -> None:
    assert frames("Fatal\n", 7) == frames("Thread 0x0000000000000007 (most recent call first):\n", 7) == []


class Steps:
    """An agent that awaits twice."""

    waits = True

    def __init__(self, seen: list[str], fails: bool = False) -> None:
        self._seen = seen
        self._fails = fails

    async def decide(self, view: object) -> str:
        """Note where it is."""
        self._seen.append("code")
        await asyncio.sleep(0)
        self._seen.append("code")
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.0)
        except TimeoutError:
            self._seen.append("code")
        if self._fails:
            raise ValueError("no")
        return "done"


class Recorder:
    """A pulse that writes a list."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def enter(self, run_id: RunId) -> None:
        """Note it."""
        self._seen.append("enter")

    def leave(self) -> None:
        """Note it."""
        self._seen.append("leave")


class FakeView:
    """All that `call_agent` looks at."""

    run_id = RunId("run_x")
    tenant = TenantId("acme")
    agent = "clerk"


@pytest.mark.parametrize("fails", [False, True])
async def test_every_stretch_of_an_agents_code_is_entered_and_left(fails: bool) -> None:
    seen: list[str] = []
    asking = call_agent(Steps(seen, fails), FakeView(), 5, Recorder(seen))  # type: ignore[arg-type]
    if fails:
        with pytest.raises(ValueError, match="no"):
            await asking
    else:
        assert await asking == "done"
    assert seen.count("code") == 3
    bare = "".join(what[0] for what in seen)
    assert re.fullmatch("(ec?l)+", bare)


def test_turning_and_leaving_are_counted() -> None:
    pulse = PulseWriter()
    pulse.turn()
    pulse.enter(RunId("run_a"))
    pulse.leave()
    pulse.enter(RunId("run_b"))
    assert PulseReader(pulse.where).read() == Reading(turns=1, left=1, inside="run_b")
    assert not pulse.watched
    PulseReader(pulse.where).extend(boot_s() + 60)
    assert pulse.watched
