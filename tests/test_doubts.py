"""What a run is in doubt about is told by its events; what is found out after its end is said once."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from airside.stack import events as ev
from airside.stack.doubts import Doubt, EffectSettled, decode_settled, doubts_of, settled_append, settled_stream
from airside.stack.ids import EffectKey, PrincipalId, TenantId
from airside.stack.local import LocalJournal
from airside.stack.reasons import ReasonCode
from airside.stack.values import Limits
from tests.helpers import RUN, SECOND, Driven

ARGUMENTS = {"to": "kim", "amount": 4}
GATED = {"digest": "d", "arguments": Raw(msgspec.json.encode(ARGUMENTS))}


def sent(wait_s: int = 60) -> Driven:
    """Return a run whose call is on its way."""
    run = Driven(Limits(doubt_wait_s=wait_s))
    run.activate()
    run.propose(**ARGUMENTS)
    run.gate(**GATED)
    run.send(ev.EffectIntended, attempt=1, key=run.key, tool="pay", digest="d")
    return run


def found(run: Driven) -> list[Doubt]:
    """Return the run's doubts as the journal gives them back."""
    return doubts_of([ev.decode_event(ev.encode_event(event)) for event in run.machine.events])


def test_a_call_that_is_at_work_or_was_answered_is_in_no_doubt() -> None:
    run = sent()
    assert found(run) == []
    run.executed()
    assert found(run) == []


def test_a_call_whose_answer_is_lost_is_listed_with_all_a_person_needs_to_find_out() -> None:
    run = sent(wait_s=60)
    at_us = run.now_us
    run.lost(started=True)
    (doubt,) = found(run)
    assert (doubt.run_id, doubt.tenant, doubt.step, doubt.tool) == (RUN, "acme", 1, "pay")
    assert (doubt.arguments, doubt.key) == (ARGUMENTS, f"{RUN}:1")
    assert (doubt.since_us, doubt.until_us) == (at_us, run.now_us + 60 * SECOND)


def test_each_activation_waits_anew_and_the_doubt_is_as_old_as_it_was() -> None:
    run = sent()
    run.lost(started=True)
    before = found(run)[0]
    run.send(ev.RunActivated, after_us=5 * SECOND, epoch=2, claim="c")
    (after,) = found(run)
    assert after.since_us == before.since_us and after.until_us == before.until_us + 5 * SECOND


def test_a_run_that_was_told_is_in_doubt_no_longer() -> None:
    run = sent()
    run.lost(started=True)
    run.send(ev.DoubtSettled, by=PrincipalId("op"), happened=True)
    assert found(run) == []


@pytest.mark.parametrize("ends_by", ["waiting in vain", "being killed in doubt", "being killed at work"])
def test_a_run_that_ended_in_doubt_is_listed_and_waits_no_more(ends_by: str) -> None:
    run = sent()
    if ends_by != "being killed at work":
        run.lost(started=True)
    if ends_by == "waiting in vain":
        run.send(ev.DoubtExpired)
    else:
        run.send(ev.KillRequested, by="op", why="", reason_code=ReasonCode.KILLED_BY_OPERATOR)
    run.end()
    (doubt,) = found(run)
    assert (doubt.key, doubt.until_us, doubt.arguments) == (f"{RUN}:1", 0, ARGUMENTS)


async def test_what_is_found_out_is_said_once() -> None:
    journal = LocalJournal()
    key = EffectKey(f"{RUN}:1")
    said = EffectSettled(at_us=9, run_id=RUN, step=1, key=key, by=PrincipalId("op"), happened=True, note="in the list")
    other = msgspec.structs.replace(said, happened=False, at_us=10)
    appends = [settled_append(each, TenantId("acme")) for each in (said, said, other)]
    assert [(await journal.append(each)).verdict for each in appends] == ["ok", "ok", "fenced"]
    (body,) = journal.bodies(settled_stream(key))
    assert decode_settled(body) == said and "op settled" in str(said) and "it happened" in str(said)
