"""Notices of approvals on Ray: a real receiver and the app's own function hear of each, after a death again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.actors.client.client import Stack
from airside.stack.webhooks import verify_webhook
from tests.apps.notes import create_app
from tests.on_ray import BOUND_S, call, ledger_of, sigkill, submit, until, waiting
from tests.receiver import HANG, Receiver, a_receiver

pytestmark = pytest.mark.ray


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that fails at first."""
    with a_receiver(503) as made:
        yield made


@pytest.fixture
def stack(local_ray: None, receiver: Receiver, tmp_path: Path) -> Iterator[Stack]:
    """A stack that tells the receiver, and a function that appends to a file."""
    told = tmp_path / "told.jsonl"

    def on_approval(notice: dict[str, Any]) -> None:
        with told.open("a", encoding="utf-8") as file:
            file.write(json.dumps(notice) + "\n")
        raise RuntimeError("logged, and nothing else")

    app = replace(create_app(tmp_path), on_approval=on_approval)
    options: dict[str, Any] = {"executors": 1, "approval_webhook": receiver.url}
    with airside.start(app, stack="notices", state_dir=tmp_path, **options) as started:
        yield started
        started.shutdown()


def told(stack: Stack) -> list[dict[str, Any]]:
    """Return what the app's function was told."""
    path = stack.state_dir / "told.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def types(stack: Stack, receiver: Receiver) -> set[tuple[str, str]]:
    """Return id and type of what arrived, each checked against the secret in the stack's key folder."""
    secret = (stack.state_dir / "keys" / "webhook.key").read_text("ascii")
    messages = [(h["webhook-id"], verify_webhook(secret, h, body, time.time())) for h, body in list(receiver.got)]
    return {(message_id, message["type"]) for message_id, message in messages}


def test_whoever_wants_to_know_is_told_and_after_a_death_again_under_the_same_id(
    stack: Stack, receiver: Receiver
) -> None:
    assert (stack.state_dir / "keys" / "webhook.key").stat().st_mode & 0o777 == 0o600
    handle = submit(stack, call("pay", to="noticed", amount=4))
    approval = waiting(stack, handle.run_id)
    until(lambda: len(receiver.got) >= 2 and told(stack), "the second attempt, and the function's call")
    assert {kind for _, kind in types(stack, receiver)} == {"approval.requested"} and len(set(receiver.ids())) == 1
    said = told(stack)[0]["data"]
    assert (said["approval_id"], said["run_id"], said["requester"]) == (approval.approval_id, handle.run_id, "ana")
    assert said["arguments"] == {"to": "noticed", "amount": 4, "hang": False} and said["roles"] == ["lead"]

    before, calls = len(receiver.got), len(told(stack))
    sigkill(stack, "approvals")
    until(lambda: len(receiver.got) > before and len(told(stack)) > calls, "it to be announced again")
    assert len(set(receiver.ids())) == 1, "the same id"

    assert stack.approve(approval.approval_id, principal="lea", note="checked") == "approved"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("noticed") == [4]
    until(lambda: len(types(stack, receiver)) == 2, "the decision's notice")
    until(lambda: told(stack)[-1]["type"] == "approval.decided", "the function to be told")
    decided = told(stack)[-1]["data"]
    assert decided["outcome"] == "approved"
    assert decided["votes"] == [{"by": "lea", "verdict": "approve", "note": "checked", "arguments": None}]

    before = len(receiver.got)
    sigkill(stack, "approvals")
    until(lambda: len(receiver.got) > before, "what was just decided to be announced again")
    assert len(set(receiver.ids())) == 2
    stats = until(lambda: stack.status()["approvals"].get("notices"), "the notices' counts")
    assert stats["given_up"] == stats["dropped"] == 0


def test_a_receiver_that_hangs_holds_no_approval_up(stack: Stack, receiver: Receiver) -> None:
    receiver.answers[:] = [HANG] * 20
    handles = [submit(stack, call("pay", to=f"hung {number}", amount=4)) for number in range(6)]
    for handle in handles:
        approval = waiting(stack, handle.run_id, bound_s=10)
        assert stack.approve(approval.approval_id, principal="lea") == "approved"
    assert all(handle.result(timeout=20).ok for handle in handles)
    assert stack.status()["approvals"]["notices"]["waiting"] > 0


def test_what_is_withdrawn_is_told_too(stack: Stack, receiver: Receiver) -> None:
    handle = submit(stack, call("pay", to="withdrawn", amount=4))
    waiting(stack, handle.run_id)
    assert stack.kill(run=handle.run_id) == 1
    until(lambda: [n for n in told(stack) if n["type"] == "approval.decided"], "the notice")
    assert told(stack)[-1]["data"]["outcome"] == "expired"
