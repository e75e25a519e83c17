"""What IPython asks an object for: a drawing of it as text and as HTML.  It never raises, and never waits for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from airside.actors.client.display.drawing import Drawing, brief
from airside.actors.client.display.html import to_html
from airside.actors.client.display.text import to_text
from airside.stack.errors import text_of

TEXT, HTML = "text/plain", "text/html"

ASK_S = 2.0
"""Longest a drawing waits for the stack: a cell that shows something must not hang."""

Answer = TypeVar("Answer")


def bundle(
    draw: Callable[[], Drawing], include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    """Return what is drawn, as text and HTML or what is wanted of these; what cannot be drawn says so."""
    wanted = {kind for kind in (TEXT, HTML) if (not include or kind in include) and kind not in (exclude or ())}
    try:
        drawing = draw()
        return _made(drawing, wanted)
    except Exception as error:
        return _made(Drawing(title="This cannot be drawn.", notes=(brief(text_of(error, 300), 300),)), wanted)


def _made(drawing: Drawing, wanted: Collection[str]) -> dict[str, str]:
    made = {TEXT: to_text(drawing)} if TEXT in wanted else {}
    return made | ({HTML: to_html(drawing)} if HTML in wanted else {})


def print_drawing(drawn: object, draw: Callable[[], Drawing], printer: Any) -> None:
    """Print a drawing with IPython's pretty printer; within something else, what is drawn as it is by itself."""
    is_inner = len(printer.stack) > 1
    printer.text(repr(drawn) if is_inner else bundle(draw, (TEXT,))[TEXT])


class Asking:
    """Puts a drawing's one question to a stack, in a thread that is left behind when the time is over.

    Ray itself waits for minutes where its control service is away.  As long as one question has no answer, no other is
    put: a notebook of fifty cells does not leave fifty threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: threading.Thread | None = None

    def ask(self, question: Callable[[], Answer], *, within_s: float = ASK_S) -> tuple[Answer | None, str]:
        """Return the answer and no problem, or None and what is the problem."""
        found: list[Answer] = []
        problem: list[str] = []

        def put() -> None:
            try:
                found.append(question())
            except Exception as error:
                problem.append(text_of(error, 300))

        with self._lock:
            if self._open is not None and self._open.is_alive():
                return None, "the stack has not answered an earlier question yet"
            thread = self._open = threading.Thread(target=put, name="airside-drawing", daemon=True)
            thread.start()
        thread.join(within_s)
        if found:
            return found[0], ""
        return None, problem[0] if problem else f"the stack did not answer within {within_s:g} s"
