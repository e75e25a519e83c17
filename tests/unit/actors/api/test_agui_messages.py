"""A run as messages of AG-UI: whatever happens in it, and wherever a client comes back, the stream is one it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from airside.actors.api.agui_messages import AguiStream, Place, RunMessages
from airside.actors.api.agui_protocol import AguiMessage
from airside.stack.contracts.streams import StreamPart
from airside.stack.errors import Refused
from airside.stack.ids import ApprovalId, PrincipalId, child_run
from airside.stack.reasons import ReasonCode, status_of
from airside.stack.run import events as ev
from airside.stack.run.topology import Branch, Done, FanOut, Visit
from airside.stack.values import Action, ApprovalRule, Finish, Handoff, Outcome, ToolCall, ToolResult, Usage
from tests.agui_verifier import BrokenStream, verify
from tests.helpers import RUN, decision, submitted
from tests.simulate import play

Piece = ev.Event | StreamPart
SMALL = settings(max_examples=60, deadline=None)


def stream(seen: str = "", **names: Any) -> AguiStream:
    """Return a stream of the run to a client."""
    return AguiStream(RUN, RunMessages("thread", "mine", **names), Place.parse(seen))


def sent(to: AguiStream, pieces: Sequence[Piece], first_part: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Return what a client is sent, with its ids; parts before `first_part` came while it was away."""
    found = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, StreamPart):
            more = list(to.parts([piece], is_torn=False)) if number >= first_part else []
        else:
            more = list(to.event(piece))
        found += [(str(place), as_json(message)) for place, message in more]
    return found


def as_json(message: AguiMessage) -> dict[str, Any]:
    """Return a message as a client reads it."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(message))
    return found


def shown(pieces: Sequence[Piece], **names: Any) -> list[dict[str, Any]]:
    """Return all messages of a run."""
    return [message for _, message in sent(stream(**names), pieces)]


def types(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def ended(reason: ReasonCode = ReasonCode.COMPLETED, answer: Any = None) -> ev.RunEnded:
    outcome = Outcome(status=status_of(reason), reason_code=reason, answer=Raw(msgspec.json.encode(answer)))
    return ev.RunEnded(at_us=9_000, outcome=outcome, usage=Usage(tokens=12, cost_microusd=7))


def ok(step: int, output: Any = None) -> ev.ToolExecuted:
    return ev.ToolExecuted(
        at_us=4_000, step=step, attempt=1, result=ToolResult(ok=True, output=Raw(msgspec.json.encode(output)))
    )


def part(kind: Any, text: str = "", step: int = 1, run: str = RUN) -> StreamPart:
    return StreamPart(number=1, kind=kind, run_id=run, step=step, text=text)  # type: ignore[arg-type]


WAITS = ev.ActionGated(
    at_us=3_000,
    step=1,
    attempt=1,
    decision=msgspec.structs.replace(
        decision("require_approval"), approval=ApprovalRule(roles=("lead",), quorum=2, expires_after_s=60)
    ),
    tool="pay",
    arguments=Raw(b'{"to":"ben"}'),
    approval_id=ApprovalId("apr_1"),
)
PAID: list[Piece] = [
    submitted(text="pay ben"),
    ev.RunActivated(at_us=1, epoch=1),
    ev.RoutePlanned(at_us=2_000, step=1, route=Visit(agent="clerk")),
    ev.StepDecided(at_us=2_500, step=1, agent="clerk", proposal=Action(tool="pay", arguments={"to": "ben"})),
    WAITS,
    ev.ApprovalDecided(
        at_us=3_500, step=1, approval_id=ApprovalId("apr_1"), outcome="approved", by=(PrincipalId("lea"),)
    ),
    ok(1, {"receipt": 7}),
    ev.RoutePlanned(at_us=5_000, step=2, route=Visit(agent="clerk")),
    part("begun", step=2),
    part("text", "It is ", step=2),
    part("text", "paid", step=2),
    part("answered", step=2),
    ev.StepDecided(at_us=6_000, step=2, agent="clerk", proposal=Finish(answer="It is paid")),
    ev.RoutePlanned(at_us=7_000, step=3, route=Done(answer="It is paid")),
    ended(answer="It is paid"),
]


def test_a_run_is_told_from_its_beginning_to_its_end() -> None:
    """Its steps, its calls with what became of them, what waits for people, what it answered, and why it ended."""
    found = shown(PAID)
    verify(found)
    assert types(found) == [
        *("RUN_STARTED", "STATE_SNAPSHOT", "STEP_STARTED"),
        *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
        *("CUSTOM", "CUSTOM", "STATE_SNAPSHOT", "CUSTOM", "STATE_SNAPSHOT", "TOOL_CALL_RESULT"),
        *("STEP_FINISHED", "STEP_STARTED"),
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        *("STEP_FINISHED", "STATE_SNAPSHOT", "RUN_FINISHED"),
    ]
    begun, last = found[0], found[-1]
    assert (begun["threadId"], begun["runId"], begun["protocolVersion"]) == ("thread", "mine", "1.0")
    assert begun["metadata"]["airside"]["run_id"] == RUN and begun["input"]["messages"][0]["content"] == "pay ben"
    customs = {each["name"]: each["value"] for each in found if each["type"] == "CUSTOM"}
    assert customs["airside.policy"]["outcome"] == "require_approval" and customs["airside.policy"]["rule"] == "r"
    waiting = customs["airside.approval_waiting"]
    assert (waiting["approval_id"], waiting["quorum"], waiting["arguments"]) == ("apr_1", 2, {"to": "ben"})
    assert customs["airside.approval_decided"]["by"] == ["lea"]
    states = [each["snapshot"]["airside"] for each in found if each["type"] == "STATE_SNAPSHOT"]
    assert [each["waiting_approvals"] for each in states] == [[], ["apr_1"], [], []]
    (result,) = [each for each in found if each["type"] == "TOOL_CALL_RESULT"]
    assert json.loads(result["content"]) == {"receipt": 7} and result["metadata"]["airside"]["ok"]
    assert (last["result"], last["outcome"], last["usage"]) == (
        "It is paid",
        {"type": "success"},
        [{"totalTokens": 12}],
    )
    assert last["metadata"]["airside"]["reason_code"] == "completed" and last["timestamp"] == 9


def test_who_was_not_there_while_a_model_wrote_is_shown_what_is_on_record() -> None:
    """Once: what was shown already is not said again."""
    said = [
        each["delta"] for each in shown([each for each in PAID if not isinstance(each, StreamPart)]) if "delta" in each
    ]
    assert said[-1] == "It is paid"
    assert [each["delta"] for each in shown(PAID) if each["type"] == "TEXT_MESSAGE_CONTENT"] == ["It is ", "paid"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (ReasonCode.COMPLETED, "RUN_FINISHED"),
        (ReasonCode.CANCELLED, "RUN_FINISHED"),
        (ReasonCode.KILLED_BY_OPERATOR, "RUN_ERROR"),
        (ReasonCode.POLICY_DENIED, "RUN_ERROR"),
        (ReasonCode.TOOL_IN_DOUBT, "RUN_ERROR"),
    ],
)
def test_an_end_has_its_reason(reason: ReasonCode, kind: str) -> None:
    """A run that was stopped in the middle leaves nothing open, and no call without a result."""
    found = shown([*PAID[:5], ended(reason)])
    verifier = verify(found)
    assert found[-1]["type"] == kind and found[-1]["metadata"]["airside"]["reason_code"] == reason
    assert found[-1].get("code", reason) == reason and len(verifier.results) == 1
    if reason is ReasonCode.CANCELLED:
        assert found[-1]["outcome"] == {"type": "cancelled"}


def test_a_call_that_is_tried_again_has_one_result() -> None:
    """The last: what came before is followed by another attempt."""
    failed = ToolResult(ok=False, error="busy", reason_code=ReasonCode.TOOL_FAILED, retry_after_ms=5)
    lost = ev.ExecutionLost(at_us=3, step=1, attempt=2, started=True, error="it died")
    found = shown([*PAID[:4], ev.ToolExecuted(at_us=3, step=1, attempt=1, result=failed), lost, ok(1, "done"), PAID[7]])
    assert [each["content"] for each in found if each["type"] == "TOOL_CALL_RESULT"] == ["done"]
    found = shown([*PAID[:4], ev.ToolExecuted(at_us=3, step=1, attempt=1, result=failed), PAID[7]])
    (result,) = [each for each in found if each["type"] == "TOOL_CALL_RESULT"]
    assert result["content"] == "busy" and result["metadata"]["airside"] == {"ok": False, "reason_code": "tool_failed"}


def test_branches_are_subagents() -> None:
    """Each under its run's id; one that does not complete says why."""
    branches = (Branch(route="a", text="x"), Branch(route="b", text="y"))
    outcomes = [ended(answer=1).outcome, ended(ReasonCode.POLICY_DENIED).outcome]
    ends = [
        ev.ChildEnded(at_us=4, step=1, branch=n, run_id=child_run(RUN, 1, n), outcome=outcome, usage=Usage())
        for n, outcome in enumerate(outcomes)
    ]
    plan = ev.RoutePlanned(at_us=2, step=1, route=FanOut(branches=branches))
    found = shown([PAID[0], plan, *ends, ended(answer=2)])
    verify(found)
    of_branches = [each for each in found if each["type"].startswith("SUBAGENT")]
    assert types(of_branches) == ["SUBAGENT_STARTED"] * 2 + ["SUBAGENT_FINISHED", "SUBAGENT_ERROR"]
    assert of_branches[2]["result"] == 1 and of_branches[3]["code"] == "policy_denied"
    assert [each["delta"] for each in found if "delta" in each] == ["2"]


def test_what_comes_to_nothing_is_said_to_be_void() -> None:
    """A text that is begun anew, or of which some was missed; what its branches' models write is not shown."""
    pieces = [part("text", "lost"), part("begun"), part("text", "No"), part("restarted", "timeout"), part("text", "x")]
    pieces += [part("begun", run=child_run(RUN, 1, 0)), part("text", "y", run=child_run(RUN, 1, 0))]
    found = shown([PAID[0], *pieces, part("begun"), part("text", "Ye"), PAID[3], ended()])
    verify(found)
    voids = [each["value"]["message_id"] for each in found if each.get("name") == "airside.text_void"]
    assert voids == [f"{RUN}:text:1", f"{RUN}:text:2"]
    assert [each["delta"] for each in found if each["type"] == "TEXT_MESSAGE_CONTENT"] == ["No", "Ye"]
    to = stream()
    sent(to, [PAID[0], part("begun"), part("text", "a")])
    torn = [as_json(message)["type"] for _, message in to.parts([], is_torn=True)]
    assert torn == ["TEXT_MESSAGE_END", "CUSTOM"]


def test_what_a_client_offers_and_is_not_taken_is_said() -> None:
    """And what it asked itself is not told to it again."""
    found = shown(PAID, echo=False, not_taken=["tools"])
    assert "input" not in found[0] and found[2]["value"] == {"fields": ["tools"]}


@pytest.mark.parametrize(
    "place", ["x", "1", "1.2", "1.2.3.4", "1.2.3.open ", "-1.0.0", "1.2.3.OPEN", "1" * 16 + ".1.1"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(Refused):
        Place.parse(place)


# Whatever happens.

TEXTS = st.text(max_size=8) | st.sampled_from(["</script>", "\r\n\ndata: {}\n\n", "\u2028\u202e", '"}', "id: 9"])
STEPS = st.integers(1, 4)
ANSWERS = st.none() | TEXTS | st.dictionaries(TEXTS, st.integers(), max_size=2)
REASONS = st.sampled_from([ReasonCode.COMPLETED, ReasonCode.CANCELLED, ReasonCode.TOOL_FAILED, ReasonCode.MAX_COST])
ROUTES = (
    st.builds(Visit, agent=TEXTS)
    | st.builds(lambda names: FanOut(branches=tuple(Branch(route=name, text="") for name in names)), st.lists(TEXTS))
    | st.builds(Done, answer=ANSWERS)
)
CALLS = st.builds(ToolCall, tool=TEXTS, arguments=st.dictionaries(TEXTS, ANSWERS, max_size=2))
PROPOSALS = (
    st.builds(Action, tool=TEXTS, arguments=st.dictionaries(TEXTS, ANSWERS, max_size=2))
    | st.builds(Finish, answer=ANSWERS)
    | st.builds(Handoff, agent=TEXTS)
)
RESULTS = st.builds(
    ToolResult,
    ok=st.booleans(),
    output=ANSWERS.map(lambda answer: Raw(msgspec.json.encode(answer))),
    error=TEXTS,
    reason_code=REASONS,
    retry_after_ms=st.none() | st.just(1),
    asked=st.sampled_from(["", "sealed"]),
)
KINDS = ("begun", "text", "text", "restarted", "failed", "answered")
PARTS = st.builds(part, st.sampled_from(KINDS), TEXTS, STEPS, st.sampled_from([RUN, RUN, child_run(RUN, 1, 0)]))
GATED = st.builds(
    lambda step, outcome: msgspec.structs.replace(WAITS, step=step, decision=decision(outcome)),
    STEPS,
    st.sampled_from(["allow", "deny", "require_approval"]),
)


def event(kind: Any, **fields: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, at_us=st.integers(0, 10**12), step=STEPS, **fields)


EVENTS = st.one_of(
    event(ev.RoutePlanned, route=ROUTES),
    st.builds(
        lambda step, proposal, later: ev.StepDecided(
            at_us=1, step=step, agent="a", proposal=proposal, later=tuple(later) if isinstance(proposal, Action) else ()
        ),
        STEPS,
        PROPOSALS,
        st.lists(CALLS, max_size=2),
    ),
    GATED,
    event(
        ev.ApprovalDecided,
        approval_id=st.just(ApprovalId("apr_1")),
        outcome=st.sampled_from(["approved", "rejected", "expired", "edited", "answered"]),
        note=TEXTS,
    ),
    event(ev.ToolExecuted, attempt=st.just(1), result=RESULTS),
    event(ev.ExecutionLost, attempt=st.just(1), started=st.booleans(), error=TEXTS),
    event(ev.InDoubtResolved, by=st.just(PrincipalId("olga")), happened=st.booleans()),
    event(ev.DecideFailed, agent=TEXTS, reason_code=REASONS, error=TEXTS),
    event(ev.SpendRefused, reason_code=REASONS, detail=TEXTS),
    st.builds(
        lambda step, n: ev.ChildEnded(
            at_us=1, step=step, branch=n, run_id=child_run(RUN, step, n), outcome=ended().outcome, usage=Usage()
        ),
        STEPS,
        st.integers(0, 2),
    ),
    st.just(PAID[0]),
)
PIECES = st.lists(EVENTS | PARTS, max_size=25)


def distinct(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield pieces of one run: no step is decided, or fanned out, twice."""
    last, steps = 0, {ev.StepDecided: 0, ev.RoutePlanned: 0}
    for piece in pieces:
        if isinstance(piece, ev.StepDecided | ev.RoutePlanned):
            last = steps[type(piece)] = last + 1 if isinstance(piece, ev.RoutePlanned) else steps[type(piece)] + 10
            piece = msgspec.structs.replace(piece, step=last)
        yield piece


@SMALL
@example(pieces=[part("begun"), part("text", "0")], end=ReasonCode.COMPLETED, answer=None)  # said once more after it
@given(pieces=PIECES, end=REASONS, answer=ANSWERS)
def test_whatever_happens_the_stream_is_one_that_clients_take(
    pieces: list[Piece], end: ReasonCode, answer: Any
) -> None:
    """What began has ended, in an order that verifies; and after the end there is nothing."""
    found = shown([PAID[0], *distinct(pieces), ended(end, answer), *pieces, ended()])
    verifier = verify(found)
    assert verifier.over and types(found).count("RUN_STARTED") == 1 and types(found)[-1].startswith("RUN_")


@SMALL
@given(pieces=PIECES, data=st.data())
def test_who_comes_back_anywhere_misses_nothing_and_sees_nothing_twice(
    pieces: list[Piece], data: st.DataObject
) -> None:
    """Both parts together are a stream that clients take, and of what is on record they are the whole."""
    whole = [PAID[0], *distinct(pieces), ended(answer="end")]
    place = data.draw(st.integers(0, len(whole)))
    before = sent(stream(), whole[:place])
    before = before[: data.draw(st.integers(0, len(before)))]
    after = sent(stream(before[-1][0] if before else ""), whole, first_part=place)
    together = [message for _, message in [*before, *after]]
    assert verify(together).over

    def on_record(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        live = (f"{RUN}:text:", "airside.text_void")
        return [each for each in messages if not str(each.get("messageId", each.get("name", ""))).startswith(live)]

    recorded, all_of_it = on_record(together), on_record(shown(whole))
    assert [each for each in recorded if each in all_of_it or "messageId" not in each] == recorded
    assert [each for each in all_of_it if "messageId" not in each] == [
        each for each in recorded if "messageId" not in each
    ]


@SMALL
@given(pieces=PIECES, end=REASONS, answer=ANSWERS)
def test_every_message_is_one_of_the_protocols(pieces: list[Piece], end: ReasonCode, answer: Any) -> None:
    """Held against its own types: every field is one of its, and nothing is null that it does not have as null."""
    from ag_ui.core import Event
    from pydantic import TypeAdapter

    adapter = TypeAdapter(Event)
    for message in shown([PAID[0], *distinct(pieces), ended(end, answer)]):
        read = adapter.validate_python(message)
        assert not read.model_extra and json.loads(read.model_dump_json(by_alias=True)) == message


def test_runs_that_were_simulated_are_streams_that_clients_take() -> None:
    """Whatever crashes and waits in them, and with all their branches."""
    ends = 0
    for seed in range(3):
        world = play(seed).world
        for run_id in {run for run in world.journal.local.streams if run.startswith("run_")}:
            events = [ev.decode_event(body) for body in world.journal.local.bodies_of(run_id)]
            if events and isinstance(events[0], ev.RunSubmitted):
                to = AguiStream(events[0].run_id, RunMessages("t", "r"), Place())
                found = [as_json(message) for each in events for _, message in to.event(each)]
                ends += verify(found).over
    assert ends > 20


@pytest.mark.parametrize(
    "wrong",
    [
        [{"type": "STEP_STARTED", "stepName": "1"}],
        [{"type": "RUN_STARTED"}, {"type": "RUN_STARTED"}],
        [{"type": "RUN_STARTED"}, {"type": "STEP_STARTED", "stepName": "1"}, {"type": "RUN_FINISHED"}],
        [{"type": "RUN_STARTED"}, {"type": "RUN_FINISHED"}, {"type": "CUSTOM"}],
        [{"type": "RUN_STARTED"}, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "1"}],
        [{"type": "RUN_STARTED"}, {"type": "TOOL_CALL_RESULT", "toolCallId": "1"}],
        [{"type": "RUN_STARTED"}, {"type": "SUBAGENT_FINISHED", "subagentRunId": "1"}],
        [{"type": "RUN_STARTED", "parentRunId": None}],
    ],
)
def test_a_stream_that_clients_refuse_is_seen_to_be_one(wrong: list[dict[str, Any]]) -> None:
    with pytest.raises(BrokenStream):
        verify(wrong)
