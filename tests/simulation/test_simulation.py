"""The simulator, as a fast test; `python -m tests.simulate --seeds 1000` plays more.  And the simulator itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from airside.stack.policy.lookups import Lookups
from airside.stack.resources import Key, ResolveReply
from airside.stack.run.calls import MAX_SENDS
from airside.stack.run.events import ChildEnded, MemoryLearned, decode_event
from airside.stack.run.instructions import Instructions
from airside.stack.run.machine import _TABLE, RunMachine
from airside.stack.run.state import Phase
from airside.stack.security.seals import unwrap
from airside.tools.dispatch import Dispatcher
from tests.simulate import main, play
from tests.simulation.plan import ON_THINGS, plan_on_memory, plan_on_things
from tests.simulation.world import World

CHUNKS = [range(first, first + 10) for first in range(0, 40, 10)]


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_promise_holds_whatever_crashes(seeds: range) -> None:
    """No seed breaks a promise: effects at most once, governed before they happen, nothing acknowledged lost."""
    broken = {seed: played.violations for seed in seeds if (played := play(seed)).violations}
    assert broken == {}


def test_nothing_is_granted_on_what_somebody_else_has_by_now() -> None:
    """Things change hands while decisions wait, answers are kept, late, wrong and mixed up, and layers die."""
    played = [play(seed, plan_on_things) for seed in range(30)]
    assert {one.seed: one.violations for one in played if one.violations} == {}
    assert all(sum(one.world.granted[tool] for one in played) > 20 for tool in ON_THINGS if tool != "give")
    assert sum(one.crashes for one in played) > 20


def test_nothing_is_learned_of_what_was_erased_whoever_dies() -> None:
    """Subjects are erased while runs and their branches that were shown them go on, and are taken up again."""
    played = [play(seed, plan_on_memory) for seed in range(20)]
    assert {one.seed: one.violations for one in played if one.violations} == {}
    codes = Counter(code for one in played for code in learned(one.world))
    assert codes["source_gone"] > 20 < codes["stored"] and sum(len(one.world.forgotten) for one in played) > 150


def learned(world: World) -> Iterator[str]:
    """Yield what memory did with what runs offered it."""
    for run_id in world.driver.submitted:
        for body in world.journal.local.bodies_of(run_id):
            event = decode_event(body)
            if isinstance(event, MemoryLearned):
                yield event.code


@pytest.mark.parametrize("seed", [3, 17])
def test_the_same_seed_is_the_same_story(seed: int) -> None:
    """Everything that happens, to the microsecond, follows from the seed."""
    assert play(seed).fingerprint == play(seed).fingerprint != play(seed + 1).fingerprint


def test_the_seed_is_all_that_matters() -> None:
    """Another process with other string hashes plays the same story."""
    script = "from tests.simulate import play; print(play(5).fingerprint)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == play(5).fingerprint


def test_the_plans_crash_something_and_have_effects() -> None:
    """The simulator does what it is for: runs have effects, and processes die while they do."""
    played = [play(seed) for seed in range(20)]
    assert sum(one.crashes for one in played) > 20
    assert sum(one.effects for one in played) > 50


@pytest.mark.parametrize("claims", [True, False])
def test_a_planted_second_send_does_nothing_twice_but_for_want_of_claims(
    monkeypatch: pytest.MonkeyPatch, claims: bool
) -> None:
    """A machine that sends a call again whose tool cannot take it is held up by the claim; without, it is caught."""

    def resend(machine: RunMachine) -> Instructions:
        machine.state.ambiguous = True
        again = machine.state.sends < MAX_SENDS
        return machine._gate(phase=Phase.RESUMING) if again else machine._doubt()

    monkeypatch.setattr(RunMachine, "_recover", resend)
    # The table and the map of outstanding work hold the function itself.
    monkeypatch.setattr("airside.stack.run.machine._OUTSTANDING", _with(resend))
    if not claims:
        monkeypatch.setattr(Dispatcher, "_claim_key", unclaimed)
    found = [text for seed in range(60) for text in play(seed).violations]
    assert any("happened 2 times" in text for text in found) is not claims


async def unclaimed(self: Dispatcher, grant: object) -> bool:
    """Let a call start whose key may be used up."""
    return False


def _with(recover: object) -> object:
    from airside.stack.run.machine import _OUTSTANDING

    return {**_OUTSTANDING, Phase.EXECUTING: recover}


def test_a_planted_early_send_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that does not wait for durability is caught at the effect."""

    async def at_once(log: object) -> None:
        log.flush()  # type: ignore[attr-defined]

    monkeypatch.setattr("airside.stack.cycle.run_log.RunLog.durable", at_once)
    found = [text for seed in range(20) for text in play(seed).violations]
    assert any("without a durable allow" in text for text in found)


def on_things(text: str, seeds: int = 60) -> bool:
    """Whether some seed breaks a promise about things in these words."""
    return any(text in said for seed in range(seeds) for said in play(seed, plan_on_things).violations)


def test_a_planted_deaf_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups that hear of no change decide on an owner of before."""
    monkeypatch.setattr(Lookups, "changed", lambda *_: None)
    assert on_things("from before it was asked for")


def test_a_planted_cache_that_forgets_for_one_moment_only_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer from between the grant and the change may not be kept."""
    changed = Lookups.changed

    def forget(lookups: Lookups, keys: Iterable[Key], timeout_ms: int) -> None:
        changed(lookups, keys, timeout_ms)
        lookups._changing.clear()

    monkeypatch.setattr(Lookups, "changed", forget)
    assert on_things("from before it was asked for")


@pytest.mark.parametrize("of_branches", [True, False])
def test_a_planted_run_that_forgets_what_it_was_shown_is_found(
    monkeypatch: pytest.MonkeyPatch, of_branches: bool
) -> None:
    """Itself, or what its branches were shown."""

    def forget(machine: RunMachine, event: ChildEnded) -> Instructions:
        outcome = msgspec.structs.replace(event.outcome, shown=())
        return machine._children_ended(msgspec.structs.replace(event, outcome=outcome))

    if of_branches:
        monkeypatch.setitem(_TABLE, (Phase.AWAITING_CHILDREN, ChildEnded), forget)
    else:
        monkeypatch.setattr(RunMachine, "_show", lambda *_: None)
    assert any(
        "said of what was erased" in text for seed in range(20) for text in play(seed, plan_on_memory).violations
    )


def test_a_planted_answer_to_another_question_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that does not look what an answer answers is told of another thing, or another tenant's."""

    def trusting(key: bytes, question: bytes, answer: bytes) -> ResolveReply:
        body = unwrap(key, "resolved", answer)
        assert body is not None
        return msgspec.msgpack.decode(body[32:], type=ResolveReply)

    monkeypatch.setattr("airside.stack.policy.lookups.open_reply", trusting)
    assert on_things("from before it was asked for")


def test_the_last_line_is_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts read the last line."""
    main(["--seeds", "2", "--brief"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert set(json.loads(last)) == {"seeds", "violations", "stuck", "crashes", "effects"}
