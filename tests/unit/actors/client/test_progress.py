"""How far a batch is, in a notebook: one output that is drawn anew, with nothing that has to be installed."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from airside.actors.client import progress
from airside.actors.client.progress import progress_of


class Front:
    """A front end: what it was shown, as text."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, drawn: Any, *, display_id: bool) -> Front:
        """Show something for the first time."""
        assert display_id
        self.update(drawn)
        return self

    def update(self, drawn: Any) -> None:
        """Show it anew."""
        self.shown.append(drawn._repr_mimebundle_()["text/plain"])


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    """Return the front end of what takes itself for a notebook's kernel."""
    found = Front()
    display: Any = types.ModuleType("IPython.display")
    display.display = found.display
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


def test_a_batch_in_a_notebook_shows_how_far_it_is(front: Front) -> None:
    """At the beginning, at times, and at the end, whatever ended it."""

    def work() -> None:
        with progress_of(3, show=True) as advance:
            advance("completed")
            advance("refused")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert front.shown[0].startswith("0 of 3 jobs have ended")
    assert front.shown[-1].startswith("2 of 3 jobs have ended: 66%") and "refused    1" in front.shown[-1]


def test_a_front_end_is_not_flooded(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand runs that end at once are a few messages."""
    monkeypatch.setattr(progress, "SHOWN_S", 3_600.0)
    with progress_of(1_000, show=True) as advance:
        for _ in range(1_000):
            advance("completed")
    assert len(front.shown) == 2 and front.shown[-1].startswith("1,000 of 1,000 jobs have ended\n")


def test_nobody_is_shown_what_nobody_wants(front: Front) -> None:
    with progress_of(3, show=False) as advance:
        advance("completed")
    assert front.shown == []


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()], ids=["none", "a terminal's"])
def test_what_only_has_imported_a_kernel_is_no_notebook(
    shell: Any, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipython: Any = sys.modules["IPython"]
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell)
    with progress_of(3, show=True) as advance:
        advance("completed")
    assert front.shown == []


def test_a_front_end_that_cannot_draw_ends_no_batch(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SHOWN_S", 0.0)
    with progress_of(2, show=True) as advance:
        monkeypatch.setattr(front, "shown", None)
        advance("completed")
        advance("completed")
    assert [record.getMessage()[:32] for record in caplog.records] == ["how far it is cannot be shown: A"]


def test_ipython_takes_how_far_a_batch_is_for_no_tuple() -> None:
    shown, _ = DisplayFormatter().format(progress.Progress(3, 4, {"completed": 3}))
    assert shown["text/plain"].startswith("3 of 4 jobs have ended: 75%") and "<table>" in shown["text/html"]
