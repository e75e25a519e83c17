"""Drawings: whatever stands in what is drawn, the HTML is ours, bounded, and there."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.client.display import stacks, tables
from airside.actors.client.display.batches import draw_summary
from airside.actors.client.display.bundle import HTML, TEXT, bundle
from airside.actors.client.display.drawing import MAX_ROWS, Drawing, brief, facts
from airside.actors.client.display.html import ATTRIBUTES, STYLE, TAGS, element, to_html
from airside.actors.client.display.listed import (
    ApprovalList,
    BatchList,
    Hits,
    InDoubtList,
    Listed,
    RecordList,
    ResultList,
    RunList,
    Story,
)
from airside.actors.client.display.results import draw_progress
from airside.actors.client.display.runs import draw_handle, draw_run, standing_of
from airside.actors.client.display.text import to_text
from airside.batches.problems import ProblemKind, Problems
from airside.memory.records import Record
from airside.stack.contracts.memory import Recalled
from airside.stack.operations.overview import RunDetail, RunStep, Wait
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import RunStatus
from airside.stack.run import events as ev
from airside.stack.run.story import story_lines
from airside.stack.text.entities import INVISIBLE
from tests.unit.actors.client.display.samples import APPROVED, approval, batch, in_doubt, played, result, summary

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}</style>",
    "</td></tr></table><a href='javascript:x'>",
    "safe\u202egnp.exe\u2066\u200b",
    "\ud800 half a character",
    "\x1b[31mred\x07\x00",
    "two\nlines\r\nand\u2028more",
    "&lt;b&gt; &amp;",
    "]]>--><!--",
    "ab" * 500_000,
    "",
)
_HIDDEN = re.compile(f"[{INVISIBLE}\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=60), st.text(alphabet="<>\"'&/=:a \u202e\u2066", max_size=60)
)
MAX_BYTES = 400_000
"""A drawing of fifty rows of the longest cells, each character of which has to be escaped."""


class Checked(HTMLParser):
    """Reads a drawing, and fails at what is not on the list."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag that is listed, with attributes that are."""
        assert tag in TAGS, tag
        self.open.append(tag)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attrs:
            assert name in {each.lower() for each in ATTRIBUTES}, name
            assert value is not None and not _HIDDEN.search(value)
            if name in ("x", "y", "rx", "width", "height"):
                assert _NUMBER.fullmatch(value), value
            elif name == "viewbox":
                assert re.fullmatch(r"0 0 \d+ \d+", value)
            elif name == "role":
                assert value == "img"
            elif name == "class":
                assert re.fullmatch(r"[a-z -]+", value), value
            else:
                assert name == "aria-label"

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Take a text: of a style it is ours."""
        assert not _HIDDEN.search(data), ascii(data)
        if self.open[-1] == "style":
            assert data == STYLE
        else:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        """Take none."""
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def checked(made: dict[str, str]) -> Checked:
    """Return a drawing's HTML as it was read, after it was found to be ours and bounded; its text is bounded too."""
    parser = Checked()
    parser.feed(made[HTML])
    parser.close()
    assert parser.open == [] and parser.counts["style"] == 1
    assert len(made[HTML].encode()) < MAX_BYTES and len(made[TEXT].encode()) < MAX_BYTES
    assert not _HIDDEN.search(made[TEXT])
    return parser


def recalled(text: str) -> Recalled:
    """Return what memory found, with a text everywhere."""
    times = {"created_us": 1, "expires_us": 2}
    return Recalled(
        record_id=text, text=text, score=0.5, source=text, sensitivity=text, kind=text, labels=(text,), **times
    )


def record(text: str) -> Record:
    """Return a record, with a text everywhere."""
    fields: dict[str, Any] = dict.fromkeys(
        ("record_id", "tenant", "text", "kind", "subject", "topic", "superseded_by", "digest"), text
    )
    fields |= {"sources": (text,) * 3, "labels": (text,), "sensitivity": "internal", "trust": "low", "state": "live"}
    fields |= {"importance": 0.5, "confidence": 1.0, "met": 0, "pinned": False}
    return Record(**fields, created_us=1, observed_us=1, expires_us=2)


def detail(text: str) -> RunDetail:
    """Return a run, with a text everywhere."""
    step = RunStep(step=1, agent=text, action=text, arguments={text: text}, decision=text, rule=text, detail=text)
    wait = Wait(kind="approval", since_us=1, what=text)
    return RunDetail(
        run=summary(text, status=text, reason_code=text),
        request=text,
        labels=(text,),
        answer={text: text},
        detail=text,
        in_doubt=(text,),
        steps=(step,),
        waits=(wait,),
    )


def switched(text: str) -> KillSwitchChanged:
    """Return a switch, with a text everywhere."""
    return KillSwitchChanged(at_us=1, scope="tenant", target=text, off=True, by=text, why=text)  # type: ignore[arg-type]


def layers(text: str) -> dict[str, dict[str, Any]]:
    """Return what layers say of themselves, with a text everywhere."""
    tenants = {text: {"running": 1, "waiting": 2}}
    return {
        "driver": {"live": 3, "tenants": tenants},
        "policy": {
            "used": {f"tenant/{text}": {text: 4}, "org": {"cost_microusd a day": 5}},
            "limits": {f"tenant/{text}": {text: 4}, "org": {"cost_microusd a day": 0}},
        },
        f"executor/{text}": {"down": text},
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


_EVENTS = played(APPROVED)
DRAWN: dict[str, Callable[[str], dict[str, str]]] = {
    "result": lambda text: result(text, RunStatus.REFUSED)._repr_mimebundle_(),
    "results": lambda text: ResultList([result(text), None, result(text, RunStatus.FAILED)])._repr_mimebundle_(),
    "approval": lambda text: approval(text)._repr_mimebundle_(),
    "question": lambda text: approval(text, question=True)._repr_mimebundle_(),
    "approvals": lambda text: ApprovalList([approval(text)] * 3)._repr_mimebundle_(),
    "runs": lambda text: RunList([summary(text), summary(text, status=text)])._repr_mimebundle_(),
    "batches": lambda text: BatchList([batch(text)])._repr_mimebundle_(),
    "problems": lambda text: Problems((ProblemKind(text, 3),), more=2, no_jobs=1)._repr_mimebundle_(),
    "batch": lambda text: bundle(lambda: draw_summary(batch(text))),
    "run": lambda text: bundle(lambda: draw_handle(text, [], text, now_us=0)),
    "events": lambda text: bundle(lambda: draw_handle(text, _EVENTS, text, now_us=0)),
    "detail": lambda text: bundle(lambda: draw_run(detail(text))),
    "story": lambda text: Story("\n".join([text] * 200), None)._repr_mimebundle_(),
    "hits": lambda text: Hits([recalled(text)])._repr_mimebundle_(),
    "records": lambda text: RecordList([record(text)])._repr_mimebundle_(),
    "in_doubt": lambda text: InDoubtList([in_doubt(text)])._repr_mimebundle_(),
    "values": lambda text: Listed([switched(text)])._repr_mimebundle_(),
    "value": lambda text: bundle(lambda: tables.draw_value(switched(text))),
    "stack": lambda text: bundle(
        lambda: stacks.draw_stack(text, Path("state"), layers(text), warnings=(text,) * 9, problem=text)
    ),
    "status": lambda text: bundle(lambda: stacks.draw_status(layers(text))),
    "query": lambda text: bundle(lambda: tables.draw_query(pa.table({_encodable(text): [_encodable(text), None]}))),
    "progress": lambda text: bundle(lambda: draw_progress(2, 3, {text: 2}, text)),
    "anything": lambda text: bundle(lambda: Drawing(title=text, status=text, facts=facts((text, text)), notes=(text,))),
}


@pytest.mark.parametrize("name", DRAWN)
@given(text=TEXTS)
@settings(max_examples=25)
def test_whatever_is_written_in_it_a_drawing_is_ours_and_bounded(name: str, text: str) -> None:
    """No element, attribute, address or style but those listed, and nothing that is hidden."""
    made = DRAWN[name](text)
    assert "This cannot be drawn" not in made[TEXT]
    checked(made)


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "events"])
def test_what_is_written_in_it_is_there_to_be_read(name: str) -> None:
    """In HTML and in text."""
    made = DRAWN[name]("b<ananas>")
    assert any("b<ananas>" in words for words in checked(made).words)
    assert "b<ananas>" in made[TEXT]


def test_a_writing_that_runs_the_other_way_stays_within_its_place() -> None:
    """Every text of others is isolated from what stands beside it."""
    made = element("bdi", "\u05d0\u05d1")
    assert made == "<bdi>\u05d0\u05d1</bdi>" and made in result("\u05d0\u05d1")._repr_mimebundle_()[HTML]


@pytest.mark.parametrize(
    "many",
    [
        ResultList(result(f"job {n}", RunStatus.FAILED if n % 2 else RunStatus.COMPLETED) for n in range(3_000)),
        ApprovalList(approval(f"call {n}") for n in range(300)),
        RunList(summary(f"run {n}") for n in range(3_000)),
        RecordList(record(f"text {n}") for n in range(300)),
        Listed(switched(f"tenant {n}") for n in range(300)),
        Hits(recalled(f"text {n}") for n in range(300)),
    ],
    ids=lambda many: type(many).__name__,
)
def test_rows_are_bounded_and_the_rest_is_counted(many: Any) -> None:
    made = many._repr_mimebundle_()
    assert checked(made).counts["tr"] <= MAX_ROWS + 10
    assert f"and {len(many) - MAX_ROWS:,} more" in made[HTML] and f"and {len(many) - MAX_ROWS:,} more" in made[TEXT]


def test_a_query_of_many_rows_and_columns_is_bounded() -> None:
    table = pa.table({f"c{n}": list(range(10_000)) for n in range(100)})
    made = bundle(lambda: tables.draw_query(table))
    assert checked(made).counts["td"] == MAX_ROWS * tables.MAX_COLUMNS
    assert "and 9,950 more" in made[HTML]


def test_a_long_story_shows_its_beginning_and_its_end() -> None:
    made = Story("\n".join(["run_1 began", *(f"line {n}" for n in range(500))]))._repr_mimebundle_()
    assert "line 0" in made[TEXT] and "line 499" in made[TEXT] and "450 lines are not shown" in made[TEXT]
    assert "line 250" not in made[HTML]


class Unspeakable:
    """Something that nothing can be asked of."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize("kind", [ResultList, ApprovalList, RunList, RecordList, Listed, Hits])
def test_a_list_of_something_else_is_drawn_too(kind: Any) -> None:
    """What is in it does not keep it from saying something."""
    for items in ([Unspeakable()], [None, 1, "text"], [[]], [{}]):
        made = kind(items)._repr_mimebundle_()
        checked(made)


def test_what_fails_while_it_is_drawn_says_so() -> None:
    def fail() -> Drawing:
        raise ZeroDivisionError("<b>no</b>")

    made = bundle(fail)
    assert "ZeroDivisionError: <b>no</b>" in made[TEXT]
    checked(made)


def test_only_what_is_wanted_is_made() -> None:
    """As IPython's `include` and `exclude` say."""
    assert set(bundle(lambda: Drawing(title="x"))) == {TEXT, HTML}
    assert set(bundle(lambda: Drawing(title="x"), include=[HTML])) == {HTML}
    assert set(bundle(lambda: Drawing(title="x"), exclude=[HTML])) == {TEXT}
    assert bundle(lambda: Drawing(title="x"), include=["image/png"]) == {}


@given(text=TEXTS, most=st.integers(1, 300))
def test_a_text_in_brief_is_short_and_says_how_long_it_was(text: str, most: int) -> None:
    shown = brief(text, most)
    assert shown.isprintable()
    assert len(shown) <= most or shown.endswith(f"… ({len(text):,} characters)")


def test_markup_is_made_of_listed_names_alone() -> None:
    """Whoever writes a drawing finds out at once."""
    with pytest.raises(AssertionError, match="script"):
        element("script", "x")
    with pytest.raises(AssertionError, match="onclick"):
        element("p", "x", onclick="x")
    assert element("p", "<b>", kind='"') == '<p class="&quot;">&lt;b&gt;</p>'


def test_what_style_and_svg_show_stands_in_the_text_as_well() -> None:
    """A front end that does not trust a notebook strips both."""
    made = bundle(lambda: draw_handle("run_1", _EVENTS, "", now_us=0))
    assert re.search(r"wait for people +1 +2\.\ds", made[TEXT])
    plain = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", made[HTML], flags=re.DOTALL)
    assert "approved by bob, cat" in plain and "completed" in plain


def test_where_a_run_stands_is_said_in_the_words_of_its_card() -> None:
    """Whoever waited in vain for a person learns that it was one."""
    gated = next(i for i, e in enumerate(_EVENTS) if isinstance(e, ev.ActionGated) and e.approval_id)
    waiting = _EVENTS[: gated + 1]
    standing = standing_of(waiting, "")
    assert re.fullmatch(r"it waits for a person: apr_run_\w+ \(\d of \w+(, \w+)*\)", standing)
    card = to_text(draw_handle("run_1", waiting, "", now_us=0))
    assert "It waits for a person" in card and standing.partition(": ")[2] in card
    assert standing_of(_EVENTS[:1], "") == "queued" and standing_of([], "no answer") == "no answer"
    deciding = next(i for i, e in enumerate(_EVENTS) if standing_of(_EVENTS[: i + 1], "") == "deciding")
    assert "active · deciding" in to_text(draw_handle("run_1", _EVENTS[: deciding + 1], "", now_us=0))


def test_a_drawing_of_a_run_is_its_own_every_time() -> None:
    """Nothing in it depends on when it is drawn, once the run has ended."""
    drawn = [draw_handle("run_1", _EVENTS, "", now_us=now_us) for now_us in (0, 10**16)]
    assert drawn[0] == drawn[1] and to_html(drawn[0]) == to_html(drawn[1])
    assert story_lines(_EVENTS).splitlines()[0].split()[0] in to_text(drawn[0])
