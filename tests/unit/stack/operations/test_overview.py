"""Which runs there are and each of their steps, by the journal alone, whether its stack runs or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw

from airside.actors.audit import JournalFile, journal_file
from airside.actors.client.display.runs import draw_run
from airside.actors.client.display.text import to_text
from airside.actors.journal.overview import list_runs
from airside.actors.journal.run_names import whole_run
from airside.actors.journal.store import JournalStore
from airside.actors.journal.story import ReadableJournal, story_of
from airside.runs_cli import step_lines
from airside.stack.errors import InvalidId, InvalidInput, Misuse
from airside.stack.ids import RunId, TenantId, root_of
from airside.stack.journal.journaling import Append
from airside.stack.operations.overview import RunDetail, detail_of
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.run.events import decode_event
from airside.stack.run.topology import Done
from airside.stack.security.keyring import KeyRing
from airside.stack.values import Spend, ToolResult
from tests.commands import airside
from tests.helpers import RUN, Driven, decision
from tests.simulate import play

SEEDS = range(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the journal of some simulated worlds, full of crashes, approvals, kills and doubts."""
    place = tmp_path_factory.mktemp("worlds")
    store = JournalStore(place, KeyRing.open(place / "keys").chain)
    for seed in SEEDS:
        local = play(seed).world.journal.local
        appends = [
            Append(tenant=_tenant(entries), stream=stream, epoch=99, first_seq=0, entries=tuple(entries))
            for stream, entries in local.streams.items()
            if stream.startswith("run_")
        ]
        assert {reply.verdict for reply in store.commit(appends)} == {"ok"}
    store.close()
    return place


def _tenant(entries: list[Any]) -> TenantId:
    first = decode_event(entries[0].body)
    return TenantId(first.identity.tenant)


@pytest.fixture(scope="module")
def journal(folder: Path) -> Iterator[JournalFile]:
    """That journal, read from its file."""
    with closing(journal_file(folder)) as opened:
        yield opened


def runs_of(journal: JournalFile) -> dict[str, list[ev.Event]]:
    """Return every run with its events."""
    ids = [row["run_id"] for row in journal.query("SELECT run_id FROM runs").to_pylist()]
    return {run: [decode_event(body) for body in bodies] for run, bodies in journal.bodies(ids).items()}


def test_every_run_can_be_shown_at_every_moment(journal: JournalFile) -> None:
    """However far it is: its steps come in order, and each attempt and outcome of its events is in one of them."""
    for events in runs_of(journal).values():
        for count in range(1, len(events) + 1):
            part = events[:count]
            found = detail_of(part)
            numbers = [step.step for step in found.steps]
            assert numbers == sorted(set(numbers)) and found.run.phase != "unknown"
            attempts = {step.step: step.attempts for step in found.steps if step.attempts}
            intended = [e.step for e in part if isinstance(e, ev.ActionGated) and e.intent]
            assert attempts == {step: intended.count(step) for step in intended}
            assert all(wait.until_us for wait in found.waits[:-1])
            waits = bool(found.waits[-1].until_us == 0)
            assert waits is (found.run.phase in ("queued", "awaiting_approval", "awaiting_children", "in_doubt")) or (
                found.run.phase == "suspended"
            )


def test_a_runs_line_is_the_same_in_the_list_and_alone(journal: JournalFile) -> None:
    """What the projections say and what the events say is one."""
    listed = {run.run_id: run for run in journal.runs(branches=True, limit=1000)}
    assert listed.keys() == runs_of(journal).keys()
    for run in listed.values():
        alone = journal.inspect(run.run_id).run
        assert msgspec.structs.replace(alone, phase=run.phase) == run
    roots = [run.run_id for run in journal.runs(limit=1000)]
    assert set(roots) == {root_of(run) for run in listed} and len(roots) < len(listed)


def test_runs_are_listed_newest_first_and_filters_leave_what_they_say(journal: JournalFile) -> None:
    """By tenant, status, reason, time and number, each alone and together."""
    everything = journal.runs(limit=1000)
    assert everything == sorted(everything, key=lambda run: (run.submitted_us, run.run_id), reverse=True)
    for status in {*map(str, RunStatus), "active"}:
        assert journal.runs(status=status, limit=1000) == [run for run in everything if run.status == status]
    for reason in {run.reason_code for run in everything} - {""}:
        assert journal.runs(reason=reason, limit=1000) == [run for run in everything if run.reason_code == reason]
    for tenant in {run.tenant for run in everything}:
        expected = [run for run in everything if run.tenant == tenant and run.status == "completed"]
        assert journal.runs(tenant=tenant, status="completed", limit=1000) == expected
    middle = everything[len(everything) // 2].submitted_us
    since = datetime.fromtimestamp(middle / 1e6, UTC)
    assert journal.runs(since=since, limit=1000) == [run for run in everything if run.submitted_us >= middle]
    assert journal.runs(since=timedelta(days=1)) == [] and journal.runs(limit=3) == everything[:3]
    assert len({run.status for run in everything}) > 3, "the worlds have many endings"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": "complete"}, "no status"),
        ({"reason": "polcy_denied"}, "no reason"),
        ({"tenant": "A B"}, "tenant"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": True}, "limit"),
        ({"since": "yesterday"}, "since"),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(journal: JournalFile, wrong: dict[str, Any], said: str) -> None:
    """A misspelt status is no empty list."""
    with pytest.raises(Misuse, match=said):
        journal.runs(**wrong)


def test_a_run_that_nobody_knows_is_said(journal: JournalFile) -> None:
    """A wrong id is refused, and so is one that the journal does not have."""
    with pytest.raises(InvalidInput, match="has no run"):
        journal.inspect("run_" + "9" * 24)
    with pytest.raises(Misuse, match="run id"):
        journal.inspect("7")


def test_six_characters_of_a_runs_id_are_enough(journal: JournalFile) -> None:
    """Of its beginning or end, with dots where it is cut; what may be several names them, and what is none is said."""
    roots = [run.run_id for run in journal.runs(limit=1000)]
    for run in roots[:5]:
        for part in (
            run[:14],
            f"{run[:14]}...",
            f"{run[:14]}\u2026",
            run[-10:],
            f"...{run[-10:]}",
            f"{run[:9]}...{run[-9:]}",
        ):
            assert journal.inspect(part).run.run_id == run, part
        assert journal.story(run[:14]) == journal.story(run) == journal.story(journal.inspect(run))
    branch = next(run for run in runs_of(journal) if "." in run)
    assert journal.inspect(branch[-12:]).run.run_id == branch
    with pytest.raises(InvalidId, match=r"may be any of run_\w+\.1-0, run_.*; give more of the id"):
        journal.inspect("run_\u2026.1-0")
    for wrong in ("0" * 5, "run_" + "9" * 8, "RUN_\u0430\u0430\u0430", "%" * 6, "_" * 6):
        with pytest.raises(InvalidId, match="is not a run id"):
            journal.inspect(wrong)


def test_a_line_of_the_list_names_its_run(journal: JournalFile) -> None:
    run = journal.runs()[0]
    assert journal.inspect(run) == journal.inspect(journal.inspect(run)) == journal.inspect(run.run_id)
    with pytest.raises(InvalidId, match="list names no run"):
        journal.inspect([run])  # type: ignore[arg-type]


def test_a_whole_id_is_looked_up_nowhere() -> None:
    for whole in (RUN, f"{RUN}.1-1"):
        assert whole_run(None, whole) == whole  # type: ignore[arg-type]
    assert whole_run(None, f"{RUN}...") == RUN  # type: ignore[arg-type]


@pytest.mark.parametrize("run_id", [5, None, b"run_", lambda: "run_"])
def test_what_has_an_id_that_is_no_text_names_no_run(run_id: object) -> None:
    with pytest.raises(InvalidId, match=r"^SimpleNamespace, whose run_id is of type \w+, names no run: give its id"):
        whole_run(None, SimpleNamespace(run_id=run_id))  # type: ignore[arg-type]


def test_a_branchs_id_that_is_cut_may_be_of_several() -> None:
    """Though what is left of it is all of an id: nothing is ordered of a branch that was not meant."""
    branches = [(f"{RUN}.1-1",), (f"{RUN}.1-12",)]
    several, one = (
        cast("ReadableJournal", SimpleNamespace(read=lambda *_, f=found: f)) for found in (branches, branches[1:])
    )
    for cut in (f"{RUN}.1-1...", f"{RUN}.1-1\u2026"):
        with pytest.raises(InvalidId, match=r"may be any of run_\w+\.1-1, run_\w+\.1-12; give more of the id"):
            whole_run(several, cut)
        assert whole_run(one, cut) == f"{RUN}.1-12"


def driven(play_out: Callable[[Driven], Any]) -> RunDetail:
    """Return a run after these strides."""
    run = Driven()
    run.activate()
    play_out(run)
    return detail_of(run.machine.events)


def test_a_step_says_what_was_proposed_decided_and_done() -> None:
    """The tool with its complete arguments, the rule, the outcome, the times and what it cost."""

    def strides(run: Driven) -> None:
        run.propose(spend=Spend(cost_microusd=5, tokens=7), to="kim")
        run.gate(arguments=Raw(b'{"to":"kim","note":""}'))
        run.executed(ToolResult(ok=True, output=Raw(b"1"), duration_us=42))
        run.finish("paid")
        run.send(ev.RoutePlanned, route=Done(answer="paid"))
        run.end()

    found = driven(strides)
    (step, last) = found.steps
    assert (step.agent, step.action, step.arguments) == ("a", "pay", {"to": "kim", "note": ""})
    assert (step.decision, step.rule, step.outcome, step.took_us) == ("allow", "r", "ok", 42)
    assert (step.cost_microusd, step.tokens, step.attempts) == (5, 7, 1) and step.decided_us > 0
    assert (last.action, last.arguments, last.outcome) == ("finish", "paid", "ok")
    assert (found.run.status, found.answer, found.run.steps) == ("completed", "paid", 2)


def test_every_argument_of_a_step_is_to_be_seen() -> None:
    """Whom a mail goes to is shown beside however long a text, and each line stays a line."""

    def strides(run: Driven) -> None:
        run.propose(body="x" * 100_000 + "\n\x1b[2J", to="kim", **{f"n{n}": n for n in range(50)})

    text = "\n".join(step_lines(driven(strides)))
    assert "to=kim" in text and "characters)" in text and "and 40 more" in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) < 1500


def test_what_a_run_waits_for_is_said_while_it_does() -> None:
    """The approval and whom it is of; once it is decided, for how long it waited, and who decided."""

    def strides(run: Driven) -> None:
        run.propose(to="kim")
        run.gate("require_approval")

    wait = driven(strides).waits[-1]
    assert (wait.kind, wait.until_us) == ("approval", 0) and wait.what.startswith("apr_1")

    def decided(run: Driven) -> None:
        strides(run)
        run.approval("rejected", note="not him")
        run.finish("not paid")
        run.send(ev.RoutePlanned, route=Done(answer="not paid"))
        run.end()

    found = driven(decided)
    assert found.waits[-1].until_us > found.waits[-1].since_us
    assert found.steps[0].outcome == "approval_rejected" and "bob: not him" in found.steps[0].detail


def test_a_refused_call_says_why() -> None:
    """Its outcome is the reason code, its detail what the gate said."""

    def strides(run: Driven) -> None:
        run.propose()
        run.gate("deny")
        run.end()

    assert driven(strides).steps[0].outcome == ReasonCode.POLICY_DENIED


def test_an_invalid_call_is_shown_with_what_was_proposed() -> None:
    """Which the gate has not read, and says nothing of."""

    def strides(run: Driven) -> None:
        run.propose(sku="bulb", qty=-3.5)
        run.gate("deny", decision=decision("deny", reason=ReasonCode.TOOL_INVALID_ARGUMENTS))

    found = driven(strides)
    assert found.steps[0].arguments == {"sku": "bulb", "qty": -3.5}
    assert "pay(sku=bulb, qty=-3.5)" in to_text(draw_run(found))


def test_a_call_in_doubt_says_so_and_how_that_is_resolved() -> None:
    """Its step is in doubt, and why; the run names the command, and what leaves no doubt."""

    def strides(run: Driven) -> None:
        run.sent(effect="write")
        run.executed(ToolResult(ok=False, error="ValueError: the bank is down", reason_code=ReasonCode.TOOL_IN_DOUBT))
        run.send(ev.InDoubtExpired)
        run.end()

    found = driven(strides)
    (step,) = found.steps
    assert (step.outcome, step.detail) == (ReasonCode.TOOL_IN_DOUBT, "ValueError: the bank is down")
    text, drawn = "\n".join(step_lines(found)), to_text(draw_run(found))
    for shown in (text, drawn):
        assert f"airside in-doubt resolve {RUN}" in shown and "--not-happened" in shown and "ToolError" in shown
    assert f"stack.resolve('{RUN}', happened=True)" in drawn


def test_events_of_another_version_do_not_stop_the_list(tmp_path: Path) -> None:
    """A run whose events no longer make sense is listed, with a phase that says so."""
    run = Driven()
    run.activate()
    broken = [*run.machine.events, *run.machine.events]
    assert detail_of(broken).run.phase == "unknown"


# By command.


def test_the_commands_list_and_show(
    folder: Path, journal: JournalFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a run and no more than asked for; with --json an object each; one run in full."""
    here = ["--state-dir", str(folder)]
    assert airside(monkeypatch, "runs", "--limit", "5", *here) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 6 and "there may be more" in said.err
    assert airside(monkeypatch, "runs", "--json", "--status", "completed", "--limit", "1000", *here) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [run["run_id"] for run in listed] == [r.run_id for r in journal.runs(status="completed", limit=1000)]
    for run in journal.runs(limit=1000):
        assert airside(monkeypatch, "runs", "show", run.run_id, *here) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"{run.run_id}: {run.status}") and max(map(len, shown.splitlines())) < 500
    assert airside(monkeypatch, "runs", "show", listed[0]["run_id"], "--json", *here) == 0
    assert json.loads(capsys.readouterr().out)["run"] == listed[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--status", "gone"], "no status"),
        (["--since", "soon"], "--since"),
        (["--since", "9" * 9 + "d", "--limit", "0"], "limit"),
        (["--active", "--status", "failed"], "together"),
        (["show", "run_1"], "run id"),
        (["--tenant", "acme", "show", RUN], "give it after"),
    ],
)
def test_what_can_match_nothing_is_a_misuse(
    folder: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names what is wrong, and exit code 2; also an option that the subcommand would not have seen."""
    monkeypatch.setenv("AIRSIDE_STATE_DIR", str(folder))
    assert airside(monkeypatch, "runs", *arguments) == 2
    assert said in capsys.readouterr().err


def test_the_whole_story_of_a_world_can_be_told(journal: JournalFile) -> None:
    """No run of any world lacks a story."""
    for run in runs_of(journal):
        assert story_of(journal, run).startswith(run)
    assert list_runs(journal, limit=1)[0].run_id.startswith(RunId("run_"))
