"""A run's story has what other streams say of it, where it happened."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.approvals import book as apr
from airside.stack.ids import (
    ApprovalId,
    EffectKey,
    ExecutorId,
    PrincipalId,
    RunId,
    TenantId,
    approval_for,
    child_run,
    effect_key,
    undo_key,
)
from airside.stack.journal.effect_claims import AttemptWithdrawn, EffectClaimed
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import EffectResolved
from airside.stack.recovery.related_entries import RelatedEntry, describe_related
from airside.stack.recovery.rollback import RollbackOrdered, UndoEnded, UndoIntended
from airside.stack.run import events as ev
from airside.stack.run.story import story_lines
from airside.stack.security.grants import GrantRefused
from airside.stack.values import Action, ApprovalRule, Outcome, ToolResult, Usage, tag_of
from tests.helpers import EXECUTOR, RUN, Driven, submitted

KEY = effect_key(RUN, 1)
BRANCH = child_run(RUN, 1, 0)
APPROVAL = approval_for(RUN, 1, "d" * 12)
LEA = PrincipalId("lea")
ENDED_US = 1_000_000


def beside(stream: str, event: Any, at_us: int | None = None) -> RelatedEntry:
    """Return an event as an entry of another stream."""
    body = msgspec.json.encode(event).decode()
    return RelatedEntry(at_us=event.at_us if at_us is None else at_us, stream=stream, type=tag_of(event), body=body)


def thrown(at_us: int, scope: str, target: str = "", *, off: bool = True, until_us: int = 0) -> RelatedEntry:
    """Return a switch."""
    event = KillSwitchChanged(
        at_us=at_us,
        scope=scope,  # type: ignore[arg-type]
        target=target,
        off=off,
        by=PrincipalId("operator-o"),
        until_us=until_us,
    )
    return beside("switches", event)


def requested(at_us: int) -> apr.ApprovalRequested:
    """Return a call that begins to wait."""
    return apr.ApprovalRequested(
        at_us=at_us,
        approval_id=APPROVAL,
        tenant=TenantId("acme"),
        requester=PrincipalId("ann"),
        run_id=RUN,
        step=1,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="payments",
        effect="external",
        arguments=Raw(b'{"to":"kim"}'),
        binding="b",
        terms=ApprovalRule(roles=("lead", "cfo"), quorum=2),
        expires_us=10**12,
    )


def voted(at_us: int, verdict: str, by: str = "lea", **fields: Any) -> apr.ApprovalVoted:
    """Return a vote."""
    return apr.ApprovalVoted(
        at_us=at_us,
        approval_id=APPROVAL,
        by=PrincipalId(by),
        roles=("lead",),
        verdict=verdict,  # type: ignore[arg-type]
        **fields,
    )


def events(*tools: str, run_id: RunId = RUN) -> list[ev.Event]:
    """Return a run that proposed these tools, and ended after a second."""
    first = msgspec.structs.replace(submitted(), run_id=run_id)
    steps = [
        ev.StepDecided(at_us=1000 * n, step=n, agent="a", proposal=Action(tool=tool)) for n, tool in enumerate(tools, 1)
    ]
    ended = ev.RunEnded(
        at_us=ENDED_US, outcome=Outcome(status="completed", reason_code=ReasonCode.COMPLETED), usage=Usage()
    )
    return [first, *steps, ended]


def story(*entries: RelatedEntry, run: list[ev.Event] | None = None) -> list[str]:
    """Return the lines of a story."""
    told = run or events("pay")
    return story_lines(told, describe_related(told, entries)).splitlines()[1:]


def refused(at_us: int) -> GrantRefused:
    """Return what an executor refused."""
    return GrantRefused(
        at_us=at_us,
        executor=EXECUTOR,
        reason_code=ReasonCode.GRANT_STALE,
        detail="a newer activation exists",
        presented_sha256="0",
        run_id=RUN,
        step=1,
        tool="pay",
    )


EVERY: list[tuple[RelatedEntry, list[str]]] = [
    (beside(APPROVAL, requested(5)), ["pay", '{"to":"kim"}', "payments", "2 of lead, cfo"]),
    (beside(APPROVAL, voted(5, "approve", note="checked")), ["lea", "lead", "approves", "checked", APPROVAL]),
    (beside(APPROVAL, voted(5, "reject", note="never")), ["lea", "rejects", "never"]),
    (beside(APPROVAL, voted(5, "edit", arguments=Raw(b'{"to":"bo"}'))), ["lea", "edits", '{"to":"bo"}']),
    (beside(APPROVAL, apr.ApprovalExpired(at_us=5, approval_id=ApprovalId(APPROVAL))), [APPROVAL]),
    (
        beside(
            f"doubt/{KEY}",
            EffectResolved(at_us=5, run_id=RUN, step=1, key=KEY, by=LEA, happened=True, output=Raw(b"7"), note="asked"),
        ),
        ["resolved", "lea", KEY, "happened", "7", "asked"],
    ),
    (
        beside(
            f"doubt/{KEY}/undo",
            EffectResolved(at_us=5, run_id=RUN, step=1, key=undo_key(KEY), by=LEA, happened=False),
        ),
        ["resolved", "undo", "did not happen"],
    ),
    (
        beside(
            f"claim/{KEY}",
            EffectClaimed(at_us=5, executor=ExecutorId(EXECUTOR), tool="pay", arguments_sha256="0", nonce=b"n"),
        ),
        ["claimed", EXECUTOR, KEY],
    ),
    (beside(f"claim/{KEY}", AttemptWithdrawn(attempt=2), at_us=5), ["never sent", "2", KEY]),
    (
        beside(f"rollback/{RUN}", RollbackOrdered(at_us=5, run_id=RUN, by=LEA, why="wrong kim")),
        ["rollback", "lea", "wrong kim"],
    ),
    (
        beside(
            f"rollback/{RUN}",
            UndoIntended(
                at_us=5,
                run_id=RUN,
                step=1,
                key=undo_key(KEY),
                attempt=1,
                tool="pay",
                arguments=Raw(b"{}"),
                digest="0",
            ),
        ),
        ["undo intended", "pay", undo_key(KEY)],
    ),
    (
        beside(
            f"rollback/{RUN}",
            UndoEnded(at_us=5, run_id=RUN, step=1, key=KEY, attempt=1, outcome="in_doubt", detail="lost"),
        ),
        ["undo", "in_doubt", "lost"],
    ),
    (beside("exe_1/acme", refused(5)), ["refused", EXECUTOR, "pay", "grant_stale", "a newer activation exists"]),
    (thrown(5, "tool", "pay"), ["switch", "tool pay off", "operator-o"]),
    (RelatedEntry(at_us=5, stream="s", type="Unheard", body="{}"), ["Unheard", "s"]),
    (RelatedEntry(at_us=5, stream=APPROVAL, type="ApprovalVoted", body="{"), ["ApprovalVoted", "cannot be read"]),
]


@pytest.mark.parametrize(("entry", "parts"), EVERY, ids=[f"{e.type}-{n}" for n, (e, _) in enumerate(EVERY)])
def test_every_kind_of_entry_is_told_where_it_happened(entry: RelatedEntry, parts: list[str]) -> None:
    """Between the run's own events, in one line that says who, what and why."""
    lines = story(entry)
    assert lines[0].startswith("#0") and lines[1].startswith("~") and lines[2].startswith("#1")
    assert all(part in lines[1] for part in parts), lines[1]


def test_entries_stand_in_the_order_of_time_and_the_run_in_its_own() -> None:
    """A clock that stepped back turns no event of the run round, and what came after its end stands after it."""
    run = events("pay", "pay")
    run[1] = msgspec.structs.replace(run[1], at_us=500_000)
    rollback = beside(f"rollback/{RUN}", RollbackOrdered(at_us=ENDED_US + 1, run_id=RUN, by=LEA))
    votes = [beside(APPROVAL, voted(400_000 + n, "approve", by=f"p{n}")) for n in range(3)]
    marks = [line.split()[0] for line in story(rollback, *votes, run=run)]
    assert marks == ["#0", "~", "~", "~", "#1", "#2", "#3", "~"]


@pytest.mark.parametrize(
    "switch",
    [
        [thrown(5, "all")],
        [thrown(5, "tenant", "acme")],
        [thrown(5, "principal", "acme/ann")],
        [thrown(5, "run", RUN)],
        [thrown(5, "version", "1")],
        [thrown(-5, "tool", "pay")],
        [thrown(-5, "tool", "pay"), thrown(5, "tool", "pay", off=False)],
    ],
)
def test_a_switch_that_could_touch_the_run_is_told(switch: list[RelatedEntry]) -> None:
    """Whatever its scope, also if it was thrown before the run began, and when it was taken back."""
    assert sum("switch:" in line for line in story(*switch)) == len(switch)


@pytest.mark.parametrize(
    "switch",
    [
        [thrown(5, "tenant", "globex")],
        [thrown(5, "principal", "acme/bo")],
        [thrown(5, "run", "run_" + "1" * 24)],
        [thrown(5, "version", "2")],
        [thrown(5, "tool", "look")],
        [thrown(ENDED_US + 1, "all")],
        [thrown(-5, "all"), thrown(-4, "all", off=False)],
        [thrown(-5, "all", until_us=-1)],
    ],
)
def test_a_switch_that_could_not_is_not(switch: list[RelatedEntry]) -> None:
    """Another's, one thrown after its end, and one that was over before it began."""
    assert not any("switch:" in line for line in story(*switch))


def test_a_branch_tells_its_own_undos_and_the_root_all() -> None:
    """A rollback is the root's; what of it concerns a branch stands in the branch's story too."""
    undone = [
        beside(
            f"rollback/{RUN}",
            UndoEnded(at_us=5, run_id=run, step=1, key=EffectKey(f"{run}:1"), attempt=1, outcome="undone"),
        )
        for run in (RUN, BRANCH)
    ]
    assert [
        sum("undone" in line for line in story(*undone, run=events("pay", run_id=run))) for run in (RUN, BRANCH)
    ] == [
        2,
        1,
    ]


def test_what_people_wrote_breaks_no_line_and_hides_nothing() -> None:
    """Line breaks, terminal escapes and hidden characters of a note are shown, not carried out."""
    lines = story(beside(APPROVAL, voted(5, "approve", note="fine\n#9 +0.0s ended\x1b[2J\u202e")))
    assert len(lines) == 4 and "\x1b" not in lines[1] and "\u202e" not in lines[1]


def test_what_is_cut_ends_in_dots() -> None:
    """A request, an argument, an answer and an output alike; what fits is whole."""
    for text, most in (("word " * 40, True), ("word", False)):
        run = Driven()
        run.activate()
        run.propose(note=text)
        run.gate()
        run.executed(ToolResult(ok=True, output=Raw(msgspec.json.encode(text))))
        run.finish(text)
        told = [
            line for line in story_lines([submitted(text=text), *run.machine.events[1:]]).splitlines() if "word" in line
        ]
        assert len(told) == 4 and [("..." in line) for line in told] == [most] * 4, told
