"""What an approver is shown: every value, and the content too, which cannot pass for a line of the display."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airside.actors.client.results import SHOWN_CHARACTERS, SHOWN_CONTENTS, PendingApproval, question_lines, questions
from airside.stack.resources import ResourceFact
from airside.stack.values import ValueOrigin


def approval(arguments: dict[str, Any], *authority: str) -> PendingApproval:
    """Return an approval of a mail whose named arguments were traced to the request."""
    return PendingApproval(
        approval_id="apr_1",
        tenant="acme",
        requester="ana",
        run_id="run_1",
        tool="send_mail",
        effect="external",
        arguments=arguments,
        rule="mails",
        roles=("lead",),
        quorum=1,
        votes=0,
        expires_us=1_764_400_000_000_000,
        request="write to kim",
        origins=tuple(ValueOrigin(path=path, value="x", part="authority", origin="request") for path in authority),
    )


def test_the_text_of_a_mail_is_shown_beside_whom_it_goes_to() -> None:
    lines = approval({"to": ["kim@corp.example"], "body": "Dear Kim,\n\nyes."}, "to.0").lines()
    assert lines[0].endswith("needs 1 of lead, has 0, until 2025-11-29 07:06:40+00:00")
    assert lines[2:] == [
        "     to.0: 'x'  <- request",
        "     body, 15 characters:",
        "       | Dear Kim,",
        "       | ",
        "       | yes.",
    ]


def test_a_value_that_stands_nowhere_is_said_to_be_the_agents() -> None:
    worked_out = ValueOrigin(
        path="n", value="6", part="authority", origin="nowhere", detail="6 = 2 (request) x 3 (read)"
    )
    made_up = ValueOrigin(path="to", value="x", part="authority", origin="nowhere")
    lines = replace(approval({"n": 6, "to": "x"}), origins=(worked_out, made_up)).lines()
    assert lines[2:] == [
        "  !! n: '6'  <- nowhere (6 = 2 (request) x 3 (read))",
        "  !! to: 'x'  <- nowhere (the agent worked it out, or made it up)",
    ]


def test_what_is_left_out_of_a_long_text_is_said() -> None:
    lines = approval({"body": "a" * (SHOWN_CHARACTERS + 5)}).lines()
    assert "a" * 100 in lines[3] and lines[-1].startswith("       (5 more characters are not shown")
    lines = approval({f"n{i}": i for i in range(SHOWN_CONTENTS + 3)}).lines()
    assert lines[-1] == "     (3 more arguments are not shown)"


@given(
    texts=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\n\r\t \u2028!"))),
        max_size=4,
    )
)
def test_no_content_and_no_key_begins_a_line_of_its_own(texts: dict[str, str]) -> None:
    """Each line of content stands behind a bar, short enough for a terminal not to wrap it."""
    lines = approval(texts).lines()
    for line in lines[2:]:
        assert line.startswith(("       | ", "     ")) and len(line.splitlines()) == 1
        assert not line.startswith("  !!")
        if line.startswith("       | "):
            wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
            assert wide <= 109


def test_what_is_known_of_a_resource_is_shown_in_one_line() -> None:
    """Whose it is, and what rules may ask about, whatever its texts hold."""
    known = ResourceFact(
        kind="order",
        path="order_id",
        declared="order_id",
        state="found",
        id="o1\n!! to: eve",
        owner="kim\u2028x",
        sensitivity="internal",
        attributes={"status": "open\nsent"},
    )
    lines = replace(approval({"order_id": "o1"}, "order_id"), resources=(known,)).lines()
    (shown,) = [line for line in lines if line.startswith("     about ")]
    assert shown.startswith("     about order 'o1\\n!! to: ") and "status='open\\nsent'" in shown
    assert not any(line.startswith(("!! ", "x")) for line in lines) and "\u2028" not in "".join(lines)


def test_what_is_shown_of_a_resource_is_bounded_and_no_text_of_it_passes_for_another_part() -> None:
    """An owner or an attribute may be named by an outsider; what is left out is said."""
    known = ResourceFact(
        kind="order",
        path="order_id",
        declared="order_id",
        state="found",
        id="o1",
        owner="eve, restricted, status='paid'",
        sensitivity="internal",
        attributes={"x='1', total": 5} | {f"name{n}": "y" * 1000 for n in range(500)},
    )
    shown = str(known)
    assert shown.startswith(
        "order 'o1' (order_id): owner \"eve, restricted, status='paid'\", internal, \"x='1', total\"=5,"
    )
    assert shown.endswith("and 481 attributes that are not shown") and len(shown) < 3000
    assert known.brief() == "order 'o1' of \"eve, restricted, status='paid'\""


def test_calls_of_one_question_are_shown_under_its_id_each_with_its_own_values() -> None:
    one, two = (replace(approval({"to": name}), group="grp_1", approval_id=f"apr_{name}") for name in ("kim", "lou"))
    alone = approval({"to": "max"})
    asked = questions([one, alone, two])
    assert asked == [[one, two], [alone]]
    lines = question_lines(asked[0])
    assert lines[0] == "grp_1: 2 calls of send_mail proposed together; vote on all by this id, or on each by its own"
    assert lines[1:] == one.lines() + two.lines() and question_lines([alone]) == alone.lines()
