"""A run as its client follows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airside.actors.client.run_stream import RunStream
from airside.actors.client.steps import Steps, drive
from airside.stack.contracts.streams import StreamPart, WatchPage, WatchRequest
from airside.stack.errors import AuthRefused, Refused
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.values import Outcome, Usage
from tests.helpers import RUN, submitted

ENDED = ev.RunEnded(outcome=Outcome(status="completed", reason_code=ReasonCode.COMPLETED), usage=Usage(), at_us=9)


def text(number: int, said: str) -> StreamPart:
    return StreamPart(number=number, kind="text", run_id=RUN, step=1, text=said, model="m")


def body(event: ev.Event) -> str:
    return ev.encode_event(event).decode()


class Pages:
    """Answers with pages, one after the other, the last one again and again; notes what it is asked."""

    def __init__(self, *pages: WatchPage) -> None:
        self.pages = list(pages)
        self.asked: list[WatchRequest] = []

    def __call__(self, asked: WatchRequest) -> Steps[WatchPage]:
        """Answer."""
        self.asked.append(asked)
        yield from ()
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]


def news_of(stream: RunStream) -> Iterator[tuple[str, str]]:
    while found := drive(stream.next_news()):
        yield from ((each.kind, each.text if each.kind == "text" else each.type) for each in found)


def test_text_and_events_come_until_the_run_has_ended() -> None:
    """Each question says what has been seen."""
    pages = Pages(
        WatchPage(events=(body(submitted()),), born="one"),
        WatchPage(parts=(text(1, "hel"),), upto=1, born="one"),
        WatchPage(born="one", upto=1),
        WatchPage(parts=(text(2, "lo"),), upto=2, born="one", events=(body(ENDED),)),
    )
    found = list(news_of(RunStream(pages, RUN, timeout=None)))
    assert found == [("event", "RunSubmitted"), ("text", "hel"), ("text", "lo"), ("event", "RunEnded")]
    assert [(asked.after, asked.born, asked.events) for asked in pages.asked] == [
        (0, "", 0),
        (0, "one", 1),
        (1, "one", 1),
        (1, "one", 1),
    ]


def test_events_are_not_read_with_every_word() -> None:
    """Twice a second while text comes, and whenever none has come."""
    now = 0.0
    words = [WatchPage(parts=(text(n, "x"),), upto=n, born="one") for n in range(1, 7)]
    pages = Pages(*words, WatchPage(born="one", upto=6), WatchPage(born="one", upto=6, events=(body(ENDED),)))
    stream = RunStream(pages, RUN, timeout=None, clock=lambda: now)
    for _ in range(7):
        drive(stream.next_news())
        now += 0.2
    assert [asked.with_events for asked in pages.asked] == [True, False, False, True, False, False, True, True]


def test_what_was_lost_is_said() -> None:
    """What was shown before counts no more."""
    pages = Pages(WatchPage(parts=(text(7, "lo"),), upto=7, born="two", is_torn=True, events=(body(ENDED),)))
    assert [kind for kind, _ in news_of(RunStream(pages, RUN, timeout=None))] == ["restarted", "text", "event"]


def test_with_a_timeout_it_is_over_when_nothing_has_come_for_so_long() -> None:
    """However often it was asked meanwhile."""
    clock = iter(range(100))
    pages = Pages(WatchPage(born="one"))
    stream = RunStream(pages, RUN, timeout=4.0, clock=lambda: float(next(clock)))
    assert list(news_of(stream)) == [] and len(pages.asked) > 1


@pytest.mark.parametrize(("code", "kind"), [("unknown", Refused), ("auth_expired", AuthRefused)])
def test_who_may_not_watch_is_told_so(code: str, kind: type[Exception]) -> None:
    """It is no end of the run."""
    with pytest.raises(kind):
        drive(RunStream(Pages(WatchPage(code=code, problem="no")), RUN, timeout=None).next_news())
