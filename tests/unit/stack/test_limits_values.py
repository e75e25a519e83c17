"""Values from outside: strict decoding of limits and requests, limits within a ceiling, and round trips of events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.approvals.book import ApprovalVoted
from airside.stack.errors import InvalidInput
from airside.stack.ids import ApprovalId, PrincipalId
from airside.stack.reasons import ReasonCode, RunStatus, status_of
from airside.stack.run import events as ev
from airside.stack.run.events import decode_event, encode_event
from airside.stack.run.topology import Branch
from airside.stack.values import Action, Limits, Request, Spend, ToolResult, decode_json
from tests.helpers import submitted

FIELDS = Limits.__struct_fields__
WRONG = ["NaN", "Infinity", "-1", "true", "false", "1.0", "1.5", "1e3", '"5"', "null", "[]", "{}"]


@pytest.mark.parametrize("value", [2**63, 10**400])
@pytest.mark.parametrize("field", ["decide_ms", "tool_ms"])
def test_a_deadline_has_an_upper_bound(field: str, value: int) -> None:
    with pytest.raises(InvalidInput):
        decode_json(f'{{"{field}":{value}}}'.encode(), Limits, where="limits")


@pytest.mark.parametrize("value", [str(2**63), "1" * 400])
@pytest.mark.parametrize("field", [name for name in FIELDS if not name.endswith("_ms")])
def test_a_limit_has_an_upper_bound(field: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^limits: "):
        decode_json(f'{{"{field}":{value}}}'.encode(), Limits, where="limits")


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_is_a_whole_number_that_is_not_negative(field: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^limits: "):
        decode_json(f'{{"{field}":{value}}}'.encode(), Limits, where="limits")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_repeats", 0),
        ("max_repeats", 1001),
        ("max_depth", 9),
        ("decide_ms", 0),
        ("tool_ms", 0),
        ("max_steps", 2**53 + 1),
    ],
)
def test_a_limit_outside_its_own_bounds_is_refused_naming_it(field: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=rf"\$\.{field}"):
        decode_json(f'{{"{field}":{value}}}'.encode(), Limits, where="limits")


def test_a_spend_is_refused_like_a_limit() -> None:
    for value in WRONG:
        with pytest.raises(InvalidInput):
            decode_json(f'{{"tokens":{value}}}'.encode(), Spend, where="spend")


def test_unknown_and_repeated_fields() -> None:
    with pytest.raises(InvalidInput, match="max_stepz"):
        decode_json(b'{"max_stepz":1}', Limits, where="limits")
    assert decode_json(b'{"max_steps":1}', Limits, where="limits") == Limits(max_steps=1)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"5", b'"x"', b'{"max_steps":1}x'])
def test_what_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^limits: "):
        decode_json(data, Limits, where="limits")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"text":5}', "text"),
        ("{}", "text"),
        ('{"text":"' + "x" * 65_537 + '"}', "65536"),
        ('{"text":"x","route":"' + "r" * 129 + '"}', "128"),
        ('{"text":"x","tenant":"globex"}', "tenant"),
        ('{"text":"x","limits":{"max_steps":-1}}', "limits"),
        ('{"text":"x","labels":"restricted"}', "labels"),
    ],
)
def test_a_request_that_breaks_its_contract_is_refused(body: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_json(body.encode(), Request, where="request")
    assert says in caught.value.message


some_limits = st.builds(
    Limits,
    **{name: st.integers(1, 8) if name in ("max_repeats", "max_depth") else st.integers(1, 10**6) for name in FIELDS},
)


@given(mine=some_limits, ceiling=some_limits, named=st.sets(st.sampled_from(FIELDS)))
def test_named_limits_only_go_down_and_the_others_stay(mine: Limits, ceiling: Limits, named: set[str]) -> None:
    got = ceiling.lowered({name: getattr(mine, name) for name in named})
    for name in FIELDS:
        least = min(getattr(mine, name), getattr(ceiling, name)) if name in named else getattr(ceiling, name)
        assert getattr(got, name) == least


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"max_stepps": 3}, "no limit 'max_stepps'"),
        ({"max_steps": -1}, "limits.max_steps"),
        ({"max_steps": True}, "limits.max_steps"),
        ({"max_steps": 1.5}, "limits.max_steps"),
        ({"max_repeats": 0}, "max_repeats"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(named: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Limits().lowered(named)


def test_values_are_frozen_keyword_only_and_closed() -> None:
    limits = Limits()
    with pytest.raises(AttributeError):
        limits.max_steps = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(max_stepz=5)  # type: ignore[call-arg]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text("ab\n", max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(arguments=st.dictionaries(st.text("xyz", max_size=3), scalars | st.lists(scalars, max_size=3), max_size=4))
def test_a_decision_is_the_same_after_the_journal(arguments: dict[str, Any]) -> None:
    action = Action(tool="pay", arguments=arguments, spend=Spend(tokens=3))
    event = ev.StepDecided(at_us=5, cause=2, step=1, agent="a", proposal=action)
    assert decode_event(encode_event(event)) == event


OLDER = {"InDoubtResolved": "DoubtSettled", "InDoubtExpired": "DoubtExpired"}
"""Events that journals know by an older name."""


@pytest.mark.parametrize("kind", msgspec.inspect.type_info(ev.AnyEvent).types, ids=lambda t: t.cls.__name__)
def test_every_event_is_tagged_with_its_name_and_refuses_what_it_does_not_know(kind: Any) -> None:
    assert kind.tag == OLDER.get(kind.cls.__name__, kind.cls.__name__)
    with pytest.raises(msgspec.ValidationError):
        decode_event(f'{{"type":"{kind.tag}","at_us":"5"}}')


RAW_OR_NONE: list[msgspec.Struct] = [
    ev.ApprovalDecided(
        at_us=1, step=1, approval_id=ApprovalId("apr"), outcome="edited", arguments=msgspec.Raw(b'{"a":0}')
    ),
    ApprovalVoted(
        at_us=1,
        approval_id=ApprovalId("apr"),
        by=PrincipalId("bob"),
        roles=(),
        verdict="edit",
        arguments=msgspec.Raw(b'{"a":0}'),
    ),
    Branch(route="b", text="t", inputs=msgspec.Raw(b'{"a":0}')),
]


@pytest.mark.parametrize("value", RAW_OR_NONE, ids=lambda value: type(value).__name__)
def test_optional_raw_json_is_the_same_after_the_journal(value: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_an_unknown_event_or_field_does_not_decode() -> None:
    data = encode_event(submitted())
    assert decode_event(data) == submitted()
    for bad in (data.replace(b"RunSubmitted", b"RunImagined"), data.replace(b'"depth"', b'"death"')):
        with pytest.raises(msgspec.ValidationError):
            decode_event(bad)


def test_a_tool_result_decodes_its_output() -> None:
    assert ToolResult(ok=True, output=msgspec.Raw(b"[1]")).value() == [1]


@pytest.mark.parametrize("reason", ReasonCode)
def test_every_reason_has_a_sentence_and_a_status(reason: ReasonCode) -> None:
    assert reason.sentence.endswith(".") and reason.sentence[0].isupper() and len(reason.sentence) > 15
    assert status_of(reason) in RunStatus
    assert ReasonCode(reason.value) is reason


def test_reasons_become_the_statuses_their_names_promise() -> None:
    for reason in ReasonCode:
        if reason.startswith("max_") or reason == "loop_detected":
            assert status_of(reason) == "stopped"
        if reason.startswith(("auth_", "policy_", "approval_")):
            assert status_of(reason) == "refused"
        if reason.startswith("killed_"):
            assert status_of(reason) == "killed"
    assert [r for r in ReasonCode if status_of(r) == "completed"] == [ReasonCode.COMPLETED]
