"""Which run a submission is, before it is answered; and what one that is not answered leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from airside.actors.client.client import Stack
from airside.actors.client.known_principals import write_people
from airside.actors.client.results import SubmitInterrupted
from airside.actors.client.steps import Pause, Steps
from airside.actors.client.submissions import run_of_job
from airside.actors.jobs import Job
from airside.stack.directory import load_directory
from airside.stack.errors import AuthRefused, LayerUnavailable, Refused
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.security.authenticator import issue_token
from airside.stack.security.keyring import KeyRing
from tests.unit.actors.client.test_job_stream import Desk, FullDisk

WHO = {"tenant": "acme", "principal": "ana"}


def job_by(**who: str) -> Job:
    """Return a job with a nonce."""
    return Job(request="r", **who).with_nonce(b"n" * 16)  # type: ignore[arg-type]


def test_a_run_is_known_before_the_answer_where_it_is_known_who_asks(tmp_path: Path) -> None:
    pem = KeyRing.open(tmp_path).issuer_pem
    run_id = run_of_job(job_by(**WHO))
    token = issue_token(pem, **WHO, now_s=0)
    assert run_id.startswith("run_") and run_id == run_of_job(job_by(token=token))
    assert run_id != run_of_job(job_by(tenant="acme", principal="bo"))
    assert run_of_job(job_by(token=issue_token(pem, **WHO, now_s=0, issuer="https://id.example"))) == ""


@pytest.mark.parametrize("token", ["ask_key", "a.b.c", "x"])
def test_a_run_of_whom_the_stack_alone_knows_is_not_guessed(token: str) -> None:
    assert run_of_job(job_by(token=token)) == ""


class Silent(Desk):
    """A stack that receives a job and does not answer."""

    def __init__(self, problem: BaseException | None) -> None:
        super().__init__()
        self.problem = problem
        self.received: list[Job] = []

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Wait for an answer, until there is a problem."""
        self.received += jobs
        yield Pause(0.0 if self.problem else 60.0)
        assert self.problem is not None
        raise self.problem


def stack_of(desk: Desk) -> Stack:
    """Return a stack that asks a desk, without what else it has."""
    stack = Stack.__new__(Stack)
    stack.backend = desk  # type: ignore[assignment]
    stack._own, stack._record = None, {"job_schema": None}
    return stack


def test_who_interrupts_a_submission_is_told_which_run_there_may_be() -> None:
    desk = Silent(KeyboardInterrupt())
    with pytest.raises(SubmitInterrupted, match=r"it may run, and then `stack.handle\('run_") as caught:
        stack_of(desk).submit("r", **WHO)
    (job,) = desk.received
    assert caught.value.run_id == run_of_job(job) and caught.value.run_id in str(caught.value)
    with pytest.raises(SubmitInterrupted, match=r"then `stack.runs\(status='active'\)` lists it$"):
        stack_of(desk).submit("r", token="ask_key")


def test_a_submission_whose_layer_went_away_says_which_run_there_may_be() -> None:
    desk = Silent(LayerUnavailable("ingress: away"))
    with pytest.raises(LayerUnavailable) as caught:
        stack_of(desk).submit("r", **WHO)
    assert run_of_job(desk.received[0]) in caught.value.__notes__[0]


def test_a_submission_that_may_have_been_admitted_is_not_refused_and_says_which_run_there_may_be() -> None:
    """One that was refused says nothing of a run."""
    desk = FullDisk(Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="the disk is full"))
    with pytest.raises(LayerUnavailable, match="the disk is full") as unsure:
        stack_of(desk).submit("r", **WHO)
    assert [run_of_job(desk.received[0]) in note for note in unsure.value.__notes__] == [True]
    desk = FullDisk(Ticket(reason_code=ReasonCode.REQUEST_INVALID, message="no text"))
    with pytest.raises(Refused, match="no text") as refused:
        stack_of(desk).submit("r", **WHO)
    assert not hasattr(refused.value, "__notes__")


@pytest.mark.parametrize(
    ("who", "reason", "hint"),
    [
        ({"tenant": "acme", "principal": "anna"}, ReasonCode.PRINCIPAL_UNKNOWN, r" \(do you mean ana\?\)$"),
        ({"tenant": "acmes", "principal": "ana"}, ReasonCode.TENANT_UNKNOWN, r" \(do you mean acme\?\)$"),
        ({"token": "ask_key"}, ReasonCode.PRINCIPAL_UNKNOWN, "unknown$"),
    ],
)
def test_whoever_names_nobody_is_told_who_may_be_meant(
    tmp_path: Path, who: dict[str, str], reason: ReasonCode, hint: str
) -> None:
    """As `airside token issue` tells it; of a token nothing is known here."""
    write_people(tmp_path, load_directory("tenants: {acme: {principals: {ana: {}, bo: {}}}}"))
    stack = stack_of(FullDisk(Ticket(reason_code=reason, message="unknown")))
    stack.state_dir = tmp_path
    with pytest.raises(AuthRefused, match=hint):
        stack.submit("r", **who)  # type: ignore[arg-type]


async def test_a_submission_that_is_cancelled_says_which_run_there_may_be() -> None:
    desk = Silent(None)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await stack_of(desk).asubmit("r", **WHO)
    cancelled = caught.value.__cause__
    assert isinstance(cancelled, asyncio.CancelledError)
    assert run_of_job(desk.received[0]) in cancelled.__notes__[0]
