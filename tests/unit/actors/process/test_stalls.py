"""A loop that is held is told from one that is busy, and from one that waits for a CPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.process.pulse import Where, boot_s
from airside.actors.process.stalls import SURE, Reading, StallWatch, Usage, Waiting
from airside.actors.wardens.warden import Ward
from tests.on_ray import until

STALL_S, EVERY_S = 2.0, 0.2
LOOP = 1

shares = st.floats(0.02, 1.0)


def watched(samples: list[tuple[float, Reading]]) -> tuple[StallWatch, float]:
    """Return a watch that took the samples, and the time of the last one."""
    watch = StallWatch(stall_s=STALL_S, every_s=EVERY_S)
    for sample in samples:
        watch.sample(*sample)
    return watch, samples[-1][0]


def test_a_run_that_holds_the_loop_is_blamed_once_it_did_for_long_enough() -> None:
    watch, now = watched([(i * EVERY_S, Reading(7, 7, "run_a")) for i in range(11)])
    assert not watch.stalled(now) and watch.stalled(now + 0.01)


def test_a_loop_held_outside_any_agent_gets_longer() -> None:
    watch, now = watched([(i * EVERY_S, Reading(7, 7, "")) for i in range(30)])
    assert not watch.stalled(now) and watch.stalled(now + STALL_S)


@given(named=st.booleans(), inside=st.sampled_from(["", "run_a"]), beats=st.integers(0, 60))
def test_a_loop_that_is_ours_needs_no_name_but_evidence(named: bool, inside: str, beats: int) -> None:
    watch = StallWatch(stall_s=STALL_S, every_s=EVERY_S, ours=True)
    for beat in range(beats + 1):
        watch.sample(beat * EVERY_S, Reading(7, 7, inside))
    held_s, bound_s = beats * EVERY_S, STALL_S if named else 3 * STALL_S
    assert watch.stalled(held_s + 1e-6, named=named) == (held_s + 1e-6 > bound_s)


def test_a_long_turn_of_many_runs_is_nobodys_fault() -> None:
    watch, now = watched([(i * EVERY_S, Reading(7, i, "run_a")) for i in range(100)])
    assert not watch.stalled(now)
    assert watch.turn_age_s(now) == now  # but it says that there is too much to do


def test_a_watcher_that_was_held_up_itself_proves_nothing() -> None:
    watch, _ = watched([(0.0, Reading(7, 7, "run_a")), (60.0, Reading(7, 7, "run_a"))])
    assert watch.held_s(60.0) == 60.0 and not watch.stalled(60.0)


def test_nobody_is_blamed_before_the_first_sample() -> None:
    watch = StallWatch(stall_s=STALL_S, every_s=EVERY_S)
    assert not watch.stalled(1e9) and watch.held_s(1e9) == watch.turn_age_s(1e9) == 0.0


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "run_a", "run_b"])), min_size=1, max_size=60))
def test_who_is_blamed_was_in_every_sample_of_the_last_seconds(pairs: list[tuple[int, str]]) -> None:
    samples = [(i * EVERY_S, Reading(turns, 0, inside)) for i, (turns, inside) in enumerate(pairs)]
    watch, now = watched(samples)
    recent = {reading for at, reading in samples if at >= now - STALL_S}
    assert not watch.stalled(now + 0.01) or len(recent) == 1


def found_after(share: float, wall_s: float, *, work_s: float = 1e9, blocked: bool = False, late: int = 1) -> float:
    """Return when a stretch of `work_s` CPU seconds is found to hold the loop, 0 if never within `wall_s`.

    Its thread gets a `share` of a CPU and waits for the rest; a `blocked` one sleeps.  Samples come every `late` beats.
    """
    watch, waiting = StallWatch(stall_s=STALL_S, every_s=EVERY_S), Waiting()
    for beat in range(0, int(wall_s / EVERY_S), late):
        now = beat * EVERY_S
        ran = 0.0 if blocked else now * share
        if ran > work_s:
            return 0.0  # it is done
        usage = Usage(ran, 0.0 if blocked else now - ran)
        watch.sample(now, Reading(7, 7, "run_a"))
        waiting.sample(now, {LOOP: usage}, lambda _: False)
        if watch.stalled(now, ran_s=waiting.ran_s(LOOP), waited_s=waiting.of(LOOP), longest_s=waiting.longest_s()):
            return now
    return 0.0


@given(shares, st.floats(0.01, STALL_S * 0.99), st.integers(1, 50))
def test_what_would_end_in_time_with_a_cpu_of_its_own_is_not_held_whatever_share_it_gets(
    share: float, work_s: float, late: int
) -> None:
    assert found_after(share, 2 * work_s / share + 10, work_s=work_s, late=late) == 0.0


@given(shares)
def test_what_spins_for_ever_is_found_once_it_had_the_patience_of_a_cpu(share: float) -> None:
    bound_s = STALL_S / share
    assert bound_s <= found_after(share, bound_s + 2) <= bound_s + 2 * EVERY_S


@given(shares)
def test_what_sleeps_in_the_loop_is_found_as_fast_however_busy_the_machine_is(share: float) -> None:
    assert found_after(share, 10, blocked=True) <= STALL_S + 2 * EVERY_S


@given(st.integers(1, 100))
def test_what_sleeps_is_found_in_a_bounded_number_of_samples_by_a_watcher_that_is_late(late: int) -> None:
    assert found_after(1.0, 1e4, blocked=True, late=late) / EVERY_S / late <= STALL_S / EVERY_S + 2


def waited(samples: list[tuple[float, Usage]], *, ready: bool) -> Waiting:
    """Return what was seen of one thread."""
    waiting = Waiting()
    for at, usage in samples:
        waiting.sample(at, {LOOP: usage}, lambda _: ready)
    return waiting


def test_a_wait_that_goes_on_counts_before_the_kernel_says_so() -> None:
    still = [(float(i), Usage(1.0, 5.0)) for i in range(10)]
    assert waited(still, ready=True).of(LOOP) == 9.0
    assert waited([*still, (9.5, Usage(1.1, 14.3))], ready=True).of(LOOP) == pytest.approx(9.3)


def test_a_thread_that_sleeps_waits_for_no_cpu() -> None:
    assert waited([(float(i), Usage(1.0, 5.0)) for i in range(10)], ready=False).longest_s() == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.booleans()), max_size=30))
def test_nothing_waits_longer_than_it_was_watched(steps: list[tuple[float, float, bool]]) -> None:
    waiting, now, usage = Waiting(), 0.0, Usage(0.0, 0.0)
    for dt, waited_s, is_ready in [(0.0, 0.0, False), *steps]:
        now, usage = now + dt, Usage(usage.ran_s, usage.waited_s + waited_s)
        waiting.sample(now, {LOOP: usage}, lambda _, is_ready=is_ready: is_ready)  # type: ignore[misc]
        assert 0.0 <= waiting.of(LOOP) <= now


@given(st.floats(0, 1))
def test_threads_that_wait_beside_a_loop_that_sleeps_put_its_end_off_within_a_bound(share: float) -> None:
    watch, now = StallWatch(stall_s=STALL_S, every_s=EVERY_S), 0.0
    watch.sample(now, Reading(7, 7, "run_a"))
    while not watch.stalled(now, longest_s=now * share):
        now += EVERY_S
        watch.sample(now, Reading(7, 7, "run_a"))
        assert now <= STALL_S * SURE + 2 * EVERY_S


# Processes that starve.

STARVED = """
import os, time
from airside.actors.process.pulse import PulseWriter

os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
os.nice({nice})
pulse = PulseWriter()
print(*pulse.where, flush=True)
while True:
    pulse.turn()
    pulse.enter("run_slow")
    end = time.thread_time() + {work_s}
    while time.thread_time() < end:
        pass
    pulse.leave()
"""

HOG = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"


@contextlib.contextmanager
def starved(work_s: float, *, hogs: int = 2, nice: int = 4) -> Iterator[Where]:
    """Run stretches of `work_s` CPU seconds on a CPU that others keep busy."""
    others = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(hogs)]
    program = STARVED.format(work_s=work_s, nice=nice)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield Where(*map(int, child.stdout.readline().split()))
    finally:
        for process in (*others, child):
            process.kill()
            process.wait()


counts_waits = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="a kernel that counts no waits")


@counts_waits
def test_a_process_that_starves_is_not_taken_for_one_that_is_held() -> None:
    with starved(0.2) as where:
        ward = Ward(where, stall_s=0.5, every_s=0.05)
        longest = 0.0

        def is_slow() -> bool:
            nonlocal longest
            ward.look(boot_s())
            assert ward.stall is None
            longest = max(longest, ward.age_s)
            return longest > 1.0  # twice what would be its end if only the clock were asked

        until(is_slow, "a stretch to take long")


@counts_waits
def test_a_run_that_spins_is_found_and_named_on_a_machine_that_starves_too() -> None:
    with starved(1e6) as where:
        ward = Ward(where, stall_s=0.5, every_s=0.05)

        def is_held() -> bool:
            ward.look(boot_s())
            return ward.stall is not None

        until(is_held, "it to be found")
        assert ward.stall is not None and ward.stall.run_id == "run_slow"
