"""`Following` against a driver that may be restarted, with answers that get lost and questions that are sent again."""

from __future__ import annotations

import random
from itertools import count

import pytest

from airside.actors.client.following import Following
from airside.actors.client.steps import Steps
from airside.actors.rpc.methods import Ends, WaitRequest
from airside.stack.ids import RunId
from airside.stack.scheduling.watches import Watches


class Asked:
    """What is waited for: the answer to one question."""

    def __init__(self, wanted: WaitRequest) -> None:
        self.wanted = wanted

    def now(self) -> None:
        """Not here: a test answers."""
        raise AssertionError

    async def later(self) -> None:
        """Not here: a test answers."""
        raise AssertionError


class Lives:
    """The lives of a driver, as far as watches go."""

    def __init__(self) -> None:
        self._marks = count()
        self.ended: set[RunId] = set()
        self.restart()

    def restart(self) -> None:
        """Begin a life that knows of no watch."""
        self.watches = Watches(f"life {next(self._marks)}")

    def end(self, run_id: RunId) -> None:
        """Let a run end."""
        self.ended.add(run_id)
        self.watches.ended(run_id, b"ended")

    def answer(self, wanted: WaitRequest) -> Ends:
        """Answer at once."""
        begins = wanted.after is None
        watch = (self.watches.begin if begins else self.watches.find)(wanted.watch, 0.0)
        if watch is None:
            return Ends(known=False)
        watch.arrived(wanted.after or 0)
        self.watches.add(watch, map(RunId, wanted.run_ids))
        for run_id in self.ended & watch.run_ids:
            self.watches.ended(run_id, b"ended")
        return Ends(*watch.next_ends(), born=watch.born)


class Question:
    """One question of a `Following`, until its answer is there; `reply` = what is on its way back."""

    def __init__(self, following: Following) -> None:
        self._steps = following.next_ends(0.0, None)
        self._asked = next(self._steps)
        self.reply: Ends | None = None

    def reach(self, driver: Lives) -> None:
        """Be answered; if the driver dies before that arrives, the question is sent again as it was."""
        assert isinstance(self._asked, Asked)
        self.reply = driver.answer(self._asked.wanted)

    def arrive(self) -> dict[str, bytes] | None:
        """Return the ends, None if another question follows."""
        try:
            self._asked = self._steps.send(self.reply)
        except StopIteration as stop:
            found: dict[str, bytes] = stop.value
            return found
        self.reply = None
        return None

    def finish(self, driver: Lives) -> dict[str, bytes]:
        """Return the ends of a driver that answers."""
        while True:
            self.reach(driver)
            found = self.arrive()
            if found is not None:
                return found


def ask(wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
    """Put a question, and leave the answer to a test."""
    reply: Ends = yield Asked(wanted)  # type: ignore[misc]
    return reply


def test_what_a_second_question_told_of_is_told_again_if_the_first_begins_a_watch_at_another_driver() -> None:
    """The first began the watch, waits, and is sent again by itself: the second is over, and is not."""
    driver, following = Lives(), Following(ask)
    following.add(["run_1"])
    first = Question(following)
    first.reach(driver)
    following.add(["run_2"])
    assert Question(following).finish(driver) == {}
    driver.restart()
    driver.end(RunId("run_2"))
    assert first.finish(driver) == {"run_2": b"ended"}


@pytest.mark.parametrize("seed", range(200))
def test_every_end_is_told_once_whatever_is_lost(seed: int) -> None:
    rnd, driver, following = random.Random(seed), Lives(), Following(ask)
    names, live, wanted, told = (RunId(f"r{n}") for n in count()), list[RunId](), set[str](), list[str]()
    questions: list[Question] = []
    for _ in range(80):
        what = rnd.choice(("follow", "end", "ask", "ask", "reach", "reach", "arrive", "arrive", "lose", "restart"))
        if what == "follow":
            live.append(next(names))
            wanted.add(live[-1])
            following.add(live[-1:])
        elif what == "end" and live:
            driver.end(live.pop(rnd.randrange(len(live))))
        elif what == "ask":
            questions.append(Question(following))
        elif what == "restart":
            driver.restart()
            for question in questions:  # an answer that is on its way may arrive, or die with its driver
                question.reply = question.reply if rnd.random() < 0.5 else None
        elif questions:
            question = rnd.choice(questions)
            if what == "lose":
                questions.remove(question)
                question._steps.close()
            elif question.reply is None:
                question.reach(driver)
            elif (found := question.arrive()) is not None:
                questions.remove(question)
                told += found
    for run_id in live:
        driver.end(run_id)
    for question in questions:
        told += question.finish(driver)
    while found := Question(following).finish(driver):
        told += found
    assert sorted(told) == sorted(wanted)
