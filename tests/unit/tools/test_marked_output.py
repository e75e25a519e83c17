"""What agents and tools print: marked with whose it is, bounded a run, never a failure of the print."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.process.console import show
from airside.stack.cycle.output_source import output_from
from airside.stack.ids import RunId, TenantId
from airside.tools.runners.output import MAX_CHARACTERS, MAX_LINES, MarkedStream, mark_of

MARK = mark_of("default")
ACME = TenantId("acme")
RUN = RunId("run_1")


def test_a_line_says_whose_it_is_and_the_stacks_own_has_no_mark() -> None:
    out = io.StringIO()
    stream = MarkedStream(out, MARK)
    with output_from("pay", ACME, RUN):
        print("one\ntwo", file=stream)
    print("own", file=stream)
    assert out.getvalue() == f"{MARK}[pay acme/run_1] one\n{MARK}[pay acme/run_1] two\nown\n"


async def test_two_tasks_that_print_at_once_do_not_mix_their_lines() -> None:
    out = io.StringIO()
    stream = MarkedStream(out, MARK)

    async def say(run: str) -> None:
        with output_from("look", ACME, RunId(run)):
            for part in ("a", "b", "\n"):
                stream.write(part)
                await asyncio.sleep(0)

    await asyncio.gather(say("run_1"), say("run_2"))
    assert sorted(out.getvalue().splitlines()) == [f"{MARK}[look acme/run_{n}] ab" for n in (1, 2)]


def test_a_run_that_prints_without_end_is_shown_to_a_bound_and_harms_no_other() -> None:
    out = io.StringIO()
    stream = MarkedStream(out, MARK)
    with output_from("pay", ACME, RUN):
        for n in range(MAX_LINES * 3):
            print(n, file=stream)
    with output_from("pay", ACME, RunId("run_2")):
        print("x" * (MAX_CHARACTERS * 2), file=stream)
    marked = [line for line in out.getvalue().splitlines() if line.startswith(MARK)]
    assert len(marked) == MAX_LINES + 2 and "log files only" in marked[MAX_LINES]
    assert len(marked[-1]) < MAX_CHARACTERS + 100 and marked[-1].endswith("... (cut)")


@given(st.lists(st.text(st.characters()), max_size=5))
def test_any_text_can_be_printed_whatever_the_file_holds(texts: list[str]) -> None:
    raw = io.BytesIO()
    stream = MarkedStream(io.TextIOWrapper(raw, encoding="ascii", write_through=True), MARK)
    with output_from("pay", ACME, RUN):
        for text in texts:
            stream.write(text + "\n")
    assert all(line.startswith(MARK.encode()) for line in raw.getvalue().split(b"\n")[:-1])


def test_only_marked_lines_of_the_stack_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{MARK}[pay acme/run_1] hello", "raylet noise", f"{mark_of('other')}[x y/z] no"]
    assert show(lines, MARK, to_stdout=False) == []
    assert capsys.readouterr().err == "[pay acme/run_1] hello\n"
    assert show(lines, MARK, to_stdout=True) == []
    assert capsys.readouterr().out == "[pay acme/run_1] hello\n"


def test_a_follower_knows_when_it_has_seen_what_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """No print can say so."""
    out = io.StringIO()
    stream = MarkedStream(out, MARK)
    with output_from("pay", ACME, RUN):
        print("written 1", file=stream)
    assert stream.say_written("2") and not MarkedStream(io.StringIO(), "").say_written("2")
    assert show(out.getvalue().splitlines(), MARK, to_stdout=True) == ["2"]
    assert capsys.readouterr().out == "[pay acme/run_1] written 1\n"
