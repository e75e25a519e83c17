"""Notices of approvals reach a real receiver at least once, under one id, and hold nothing up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from airside.actors.approvals import notifier
from airside.actors.approvals.notifier import Notifier, OnApproval
from airside.stack.approvals.book import (
    Approval,
    ApprovalBook,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalVoted,
    Question,
)
from airside.stack.approvals.notifications import Notification, notices_of, notification_of
from airside.stack.canonical import canonical
from airside.stack.errors import InvalidConfig
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId
from airside.stack.values import ApprovalRule, ValueOrigin
from airside.stack.webhooks import secret_text, verify_webhook, webhook_target
from tests.apps.notes import create_app
from tests.helpers import RUN
from tests.receiver import HANG, Receiver, a_receiver

SECRET = secret_text(b"s" * 32)
APPROVAL = ApprovalId(f"apr_{RUN}.1-0_3_000000000000")


def asked(number: int = 3) -> ApprovalRequested:
    """Return ann's wish, in a branch, to pay."""
    return ApprovalRequested(
        at_us=1_700_000_000_123_456,
        approval_id=ApprovalId(APPROVAL.replace("_3_", f"_{number}_")),
        tenant=TenantId("acme"),
        requester=PrincipalId("ann"),
        run_id=RunId(f"{RUN}.1-0"),
        step=number,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="lead-pays",
        effect="external",
        arguments=Raw(canonical({"to": "kim", "amount": 4})),
        binding="b",
        terms=ApprovalRule(roles=("lead",), quorum=2),
        expires_us=1_700_000_100_000_000,
        request_text="Pay Kim",
        origins=(ValueOrigin(path="to", part="authority", value="kim", origin="tool", detail="read_mail, step 1"),),
    )


def waiting(number: int = 3) -> Notification:
    """Return the notice of an approval that waits."""
    return notification_of(Approval(request=asked(number)))


def announcer(receiver: Receiver | None, on_approval: OnApproval | None = None) -> Notifier:
    """Return an announcer for a receiver."""
    target = webhook_target(receiver.url, insecure=False) if receiver else None
    return Notifier(target, SECRET, on_approval)


async def until(it: Notifier, look: Callable[[], Any], what: str) -> None:
    """Wait until something is so, which only what is under way can bring about."""
    while not look():
        assert it._tasks, f"{what}: nothing is under way any more"
        await asyncio.wait(it._tasks, return_when=asyncio.FIRST_COMPLETED)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and wait half a second for an answer."""
    monkeypatch.setattr(notifier, "PAUSES_S", (0.01, 0.02, 0.02))
    monkeypatch.setattr(notifier, "ANSWER_S", 0.5)


def test_a_notice_says_who_wants_what_until_when_and_by_which_rule() -> None:
    message = json.loads(waiting().body())
    assert message["type"] == "approval.requested" and message["timestamp"] == "2023-11-14T22:13:20.123Z"
    assert message["data"] == {
        "approval_id": APPROVAL,
        "tenant": "acme",
        "run_id": f"{RUN}.1-0",
        "step": 3,
        "tool": "pay",
        "effect": "external",
        "arguments": {"to": "kim", "amount": 4},
        "resources": [],
        "origins": [
            {
                "path": "to",
                "part": "authority",
                "value": "kim",
                "origin": "tool",
                "detail": "read_mail, step 1",
                "whole": False,
            }
        ],
        "requester": "ann",
        "request": "Pay Kim",
        "rule": "lead-pays",
        "roles": ["lead"],
        "quorum": 2,
        "expires_us": 1_700_000_100_000_000,
    }


def test_a_decision_has_a_notice_of_its_own_that_says_who_said_what() -> None:
    edited = Raw(canonical({"to": "kim", "amount": 3}))
    vote = ApprovalVoted(
        at_us=1_700_000_001_000_000,
        approval_id=APPROVAL,
        by=PrincipalId("lea"),
        roles=("lead",),
        verdict="edit",
        arguments=edited,
        note="less",
    )
    notice = notification_of(ApprovalBook([asked(), vote]).decided()[0])
    assert notice.type == "approval.decided" and notice.at_us == vote.at_us and notice.id != waiting().id
    assert notice.data["outcome"] == "edited"
    assert notice.data["votes"] == [
        {"by": "lea", "verdict": "edit", "note": "less", "arguments": {"to": "kim", "amount": 3}}
    ]
    expired = ApprovalBook([asked(), ApprovalExpired(at_us=9, approval_id=APPROVAL)]).decided()[0]
    assert notification_of(expired).data["outcome"] == "expired"


def test_a_question_about_several_calls_has_one_notice_with_each_of_them() -> None:
    """What is decided about each has one of its own, for people may say different things of them."""
    book = ApprovalBook()
    for event in book.register(Question(asked=asked(3), beside=(asked(4), asked(5))), now_us=1):
        book.apply(event)
    (notice,) = notices_of(book.pending())
    assert [call["step"] for call in notice.data["calls"]] == [3, 4, 5]
    assert notice.data["approval_id"] == asked(3).approval_id and notice.data["group"].startswith("grp_")
    assert all(call["arguments"] == {"to": "kim", "amount": 4} for call in notice.data["calls"])
    for number in (3, 4):
        book.apply(ApprovalExpired(at_us=9, approval_id=asked(number).approval_id))
    later = notices_of([*book.pending(), *book.decided()])
    assert [each.type for each in later] == ["approval.requested", "approval.decided", "approval.decided"]
    assert later[0].id == notice.id and len({each.id for each in later}) == 3
    assert "calls" not in later[1].data


def test_an_id_is_the_same_each_time_and_has_no_dot() -> None:
    assert waiting().id == waiting().id != waiting(4).id
    assert waiting().id.startswith("msg_") and "." not in waiting().id


async def test_a_receiver_can_verify_what_it_gets() -> None:
    with a_receiver() as receiver:
        it = announcer(receiver)
        it.notify(waiting())
        await until(it, lambda: it.stats()["delivered"], "the delivery")
        ((headers, body),) = receiver.got
    assert verify_webhook(SECRET, headers, body, time.time()) == waiting().message()
    assert headers["content-type"] == "application/json" and headers["webhook-id"] == waiting().id


async def test_a_receiver_that_fails_twice_gets_it_a_third_time_under_the_same_id() -> None:
    with a_receiver(500, 429) as receiver:
        it = announcer(receiver)
        it.notify(waiting())
        await until(it, lambda: it.stats()["delivered"], "the delivery")
        assert receiver.ids() == [waiting().id] * 3
        for headers, body in receiver.got:
            assert verify_webhook(SECRET, headers, body, time.time())


async def test_a_receiver_that_hangs_holds_nothing_up_and_gets_it_again() -> None:
    with a_receiver(HANG) as receiver:
        it = announcer(receiver)
        began = time.monotonic()
        it.notify(waiting())
        assert time.monotonic() - began < 0.1, "announcing waits for nobody"
        await asyncio.to_thread(receiver.wait_for, 1)
        it.notify(waiting(4))
        await until(it, lambda: it.stats()["delivered"] == 2, "both deliveries")
        assert receiver.ids() == [waiting().id, waiting(4).id, waiting().id]


async def test_a_redirect_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    with a_receiver(302, 301, 307, 308) as receiver:
        it = announcer(receiver)
        it.notify(waiting())
        await until(it, lambda: it.stats()["given_up"], "it to be given up")
        assert len(receiver.got) == 4 and it.stats()["delivered"] == 0
    assert "which is not followed" in caplog.text and "is given up" in caplog.text


async def test_a_receiver_that_is_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_receiver() as receiver:
        pass
    it = announcer(receiver)
    it.notify(waiting())
    await until(it, lambda: it.stats()["given_up"], "it to be given up")
    assert it.stats() == {"delivered": 0, "given_up": 1, "dropped": 0, "callback_failed": 0, "waiting": 0}


async def test_more_than_a_receiver_can_be_told_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "MAX_WAITING", 2)
    with a_receiver() as receiver:
        it = announcer(receiver)
        for number in range(5):
            it.notify(waiting(number))
        await until(it, lambda: it.stats()["delivered"] == 2, "what was kept")
        assert it.stats()["dropped"] == 3


async def test_the_apps_function_is_called_in_a_thread_and_its_errors_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[tuple[dict[str, Any], str]] = []

    def on_approval(notice: dict[str, Any]) -> None:
        seen.append((notice, threading.current_thread().name))
        if len(seen) == 1:
            notice["data"].clear()
            raise LookupError("nobody is there")

    with a_receiver() as receiver:
        it = announcer(receiver, on_approval)
        it.notify(waiting())
        it.notify(waiting(4))
        await until(it, lambda: len(seen) == 2 and it.stats()["delivered"] == 2, "all")
        assert {json.loads(body)["data"]["step"] for _, body in receiver.got} == {3, 4}
    assert seen[1][0] == waiting(4).message() and seen[1][1].startswith("on-approval")
    assert it.stats()["callback_failed"] == 1 and "nobody is there" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), StopIteration()])
async def test_a_function_that_wants_the_process_to_end_ends_nothing(error: BaseException) -> None:
    def on_approval(notice: dict[str, Any]) -> None:
        raise error

    it = announcer(None, on_approval)
    it.notify(waiting())
    await until(it, lambda: it.stats()["callback_failed"] == 1, "the failure")


async def test_a_function_that_gives_something_to_await_has_it_awaited() -> None:
    """In its own thread; what that raises is logged as its own errors are."""
    seen: list[int] = []

    async def post(notice: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        seen.append(notice["data"]["step"])
        if len(seen) == 2:
            raise LookupError("nobody is there")

    it = announcer(None, lambda notice: post(notice))
    for number in (3, 4):
        it.notify(waiting(number))
    await until(it, lambda: it.stats()["callback_failed"] == 1, "both")
    assert sorted(seen) == [3, 4]


async def test_a_function_that_hangs_holds_up_no_webhook() -> None:
    over = threading.Event()

    def on_approval(notice: dict[str, Any]) -> None:
        over.wait(30)

    with a_receiver() as receiver:
        it = announcer(receiver, on_approval)
        for number in range(6):
            it.notify(waiting(number))
        await until(it, lambda: it.stats()["delivered"] == 6, "the webhooks")
        over.set()
        await until(it, lambda: it.stats()["waiting"] == 0, "the function")


def test_nobody_is_told_where_nobody_asked() -> None:
    assert not announcer(None).is_wanted and announcer(None, print).is_wanted


@pytest.mark.parametrize("function", [7, asyncio.sleep])
def test_an_app_with_something_that_no_thread_can_call_is_refused(function: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"on_approval: .* is not a plain function"):
        replace(create_app(tmp_path), on_approval=function).checked()
    assert replace(create_app(tmp_path), on_approval=print).checked().app.on_approval is print
