"""An agent that is a model, on a real stack, against a server that speaks a provider's protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.actors.client.client import Stack
from airside.audit import open_audit
from airside.stack.errors import Refused
from benchmarks.model_servers import Body, ModelServer, Saying, call, in_order, serving
from examples.frameworks.app import CLERKS
from tests.apps.support import create_app
from tests.commands import airside as command_line
from tests.on_ray import BOUND_S, ROOT, ledger_of, sigkill, until, waiting

pytestmark = pytest.mark.ray

FOUND = call("find_order", {"order_id": "o-7"})
REFUND = call("refund", {"order_id": "o-7", "cents": 1200})
DONE = call("final_answer", {"text": "You get your money back.", "refunded_cents": 1200})


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving(in_order(DONE)) as found:
        yield found


@pytest.fixture(scope="module")
def stack(local_ray: None, server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("support")
    app = create_app(folder, server.url)
    with airside.start(app, stack="support", state_dir=folder, executors=1, model_content="full") as found:
        yield found


def ask(
    stack: Stack, text: str = "Where is order o-7? Refund it.", tenant: str = "acme", route: str = "default"
) -> airside.RunHandle:
    return stack.submit(text, tenant=tenant, principal="ana", route=route)


def told(body: Body, role: str) -> list[Any]:
    """Return what a request told the model under a role."""
    return [message for message in body["messages"] if message["role"] == role]


def events(stack: Stack, run_id: str) -> list[str]:
    """Return what the journal has of a run's questions to models."""
    sql = "SELECT type FROM events WHERE stream LIKE ? ORDER BY at_us, seq"
    return [row["type"] for row in stack.query(sql, [f"model/{run_id}:%"]).to_pylist()]


def test_a_model_acts_through_the_gate_and_answers_in_the_shape_that_is_asked_for(
    stack: Stack, server: ModelServer
) -> None:
    server.bodies.clear()
    server.say = in_order(FOUND, REFUND, DONE)
    handle = ask(stack)
    asked = waiting(stack, handle.run_id)
    assert asked.arguments == {"order_id": "o-7", "cents": 1200} and not ledger_of(stack).texts("refund")
    stack.approve(asked.approval_id, principal="lea")
    result = handle.result(timeout=BOUND_S)
    assert result.ok and result.answer == {"text": "You get your money back.", "refunded_cents": 1200}
    assert ledger_of(stack).texts("refund") == ["refund o-7"]
    assert result.tokens == 3 * 120 and result.cost_microusd == 3 * 300
    assert json.loads(told(server.bodies[-1], "tool")[0]["content"])["result"]["state"] == "lost"
    assert events(stack, handle.run_id) == ["ModelAsked", "ModelAnswered"] * 3
    sql = "SELECT body FROM events WHERE type = 'ModelAsked' AND stream LIKE ?"
    asked = [json.loads(row["body"]) for row in stack.query(sql, [f"model/{handle.run_id}:%"]).to_pylist()]
    assert len({each["prompt_blob"] for each in asked} - {""}) == 3 and stack.verify() == []


def test_what_a_model_writes_wrong_is_told_to_it_and_nothing_of_it_happens(stack: Stack, server: ModelServer) -> None:
    wrong = call("refund", '{"order_id": "o-9", "cents": 1, "cents": 2}')
    unknown = call("drop_tables", {})
    server.say = in_order(wrong, unknown, DONE)
    result = ask(stack).result(timeout=BOUND_S)
    assert result.ok and not ledger_of(stack).texts("refund o-9")
    assert "cents" in told(server.bodies[-1], "tool")[0]["content"]


def test_the_death_of_its_process_asks_no_model_twice(stack: Stack, server: ModelServer) -> None:
    server.bodies.clear()
    server.say = in_order(Saying(calls=FOUND.calls, after_s=1.0), DONE)
    handle = ask(stack)
    until(lambda: server.bodies, "the model to be asked")
    sigkill(stack, "runtime")
    result = handle.result(timeout=2 * BOUND_S)
    assert result.ok and len(server.bodies) == 2
    assert events(stack, handle.run_id) == ["ModelAsked", "ModelAnswered"] * 2


def test_what_a_models_code_calls_is_a_call_of_the_run_and_its_processs_death_loses_none(
    stack: Stack, server: ModelServer
) -> None:
    """The code waits for a person, is taken up by another process, and the model is asked for no other."""
    server.bodies.clear()
    code = "order = await find_order('o-5')\nprint(order['state'])\nawait refund('o-5', order['cents'])"
    done = call("final_answer", {"text": "You get it back.", "refunded_cents": 1200})
    server.say = in_order(call("python_code", {"code": code}), done)
    handle = ask(stack, "Where is order o-5? Refund it.", route="code")
    asked = waiting(stack, handle.run_id)
    assert asked.arguments == {"order_id": "o-5", "cents": 1200} and len(server.bodies) == 1
    sigkill(stack, "runtime")
    stack.approve(asked.approval_id, principal="lea")
    assert handle.result(timeout=2 * BOUND_S).ok and ledger_of(stack).texts("refund o-5") == ["refund o-5"]
    result = json.loads(told(server.bodies[-1], "tool")[0]["content"])
    assert result["printed"] == "lost\n" and result["result"] == {"refunded": 1200} and len(server.bodies) == 2
    assert [tool["function"]["name"] for tool in server.bodies[0]["tools"]] == ["python_code", "final_answer"]


def test_other_frameworks_agents_go_on_where_they_were_when_their_process_dies(
    stack: Stack, server: ModelServer
) -> None:
    """No model is asked again, and each order is refunded once."""
    server.bodies.clear()

    def say(body: Body) -> Saying:
        order = next(name for name in CLERKS if f"order {name}" in json.dumps(body["messages"]))
        refund = call("refund", {"order_id": order, "cents": 1200})
        sayings = (
            call("find_order", {"order_id": order}),
            Saying(calls=refund.calls, after_s=1.5),
            Saying(text="done"),
        )
        return sayings[sum(message["role"] == "assistant" for message in body["messages"])]

    server.say = say
    handles = {
        name: stack.submit(f"Where is order {name}? Refund it.", tenant="acme", principal="ana", route=name)
        for name in CLERKS
    }
    until(lambda: len(server.bodies) == 2 * len(CLERKS), "each to be asked its second question")
    sigkill(stack, "runtime")
    for handle in handles.values():
        stack.approve(waiting(stack, handle.run_id, bound_s=2 * BOUND_S).approval_id, principal="lea")
    results = {name: handle.result(timeout=2 * BOUND_S) for name, handle in handles.items()}
    assert {name: result.answer for name, result in results.items()} == dict.fromkeys(CLERKS, "done")
    assert [ledger_of(stack).texts(f"refund {name}") for name in CLERKS] == [[f"refund {name}"] for name in CLERKS]
    assert len(server.bodies) == 3 * len(CLERKS)


def test_what_was_under_way_when_the_model_caller_died_counts_in_full(stack: Stack, server: ModelServer) -> None:
    server.bodies.clear()
    server.say = in_order(Saying(text="never heard", after_s=30), DONE)
    handle = ask(stack)
    until(lambda: server.bodies, "the model to be asked")
    sigkill(stack, "models")
    result = handle.result(timeout=2 * BOUND_S)
    assert result.ok and result.tokens > 1_000, "what nobody answered counts as much as it could take"
    assert events(stack, handle.run_id) == ["ModelAsked", "ModelAsked", "ModelAnswered"] and len(server.bodies) == 2
    doubt = next(each for each in stack.spend_in_doubt("acme") if each.run_id == handle.run_id)
    assert doubt.attempt == 1 and doubt.reserved.cost_microusd > 300
    assert stack.resolve_spend(doubt.key, cost_microusd=300, why="the bill") == 1
    assert all(each.key != doubt.key for each in stack.spend_in_doubt())
    with pytest.raises(airside.AirsideError, match="what is on record stays"):
        stack.resolve_spend(doubt.key, cost_microusd=0)


def test_who_watches_a_run_is_shown_what_its_model_writes_and_another_tenant_is_not(
    stack: Stack, server: ModelServer
) -> None:
    """The run's own principal by a token, its events with it."""
    server.bodies.clear()
    slow = Saying(calls=FOUND.calls, after_s=1.0)  # the first answer: nobody watches yet, perhaps
    server.say = in_order(slow, Saying(text="I have looked at it.", calls=DONE.calls, word_s=0.02))
    handle = ask(stack)
    news = list(handle.stream(token=stack.token("acme", "ana"), timeout=BOUND_S))
    assert "I have looked at it." in "".join(each.text for each in news if each.kind == "text")
    assert next(each.type for each in news if each.type) == "RunSubmitted" and news[-1].type == "RunEnded"
    assert server.bodies[-1]["stream"] and handle.result(timeout=BOUND_S).ok
    with pytest.raises(Refused):
        next(stack.watch(handle.run_id, token=stack.token("poor", "ana")))
    assert [each.type for each in stack.watch(handle.run_id, timeout=0)][-1] == "RunEnded", "as an operator"


def test_what_a_tenants_budget_does_not_pay_for_is_not_asked(stack: Stack, server: ModelServer) -> None:
    server.bodies.clear()
    result = ask(stack, tenant="poor").result(timeout=BOUND_S)
    assert str(result.reason_code) == "budget_exhausted" and not server.bodies


@pytest.mark.slow
def test_the_support_example_plays_its_cassette(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its agent, shown its run once more, is told the same to the letter: a cassette answers nothing else."""
    command = [sys.executable, "-m", "examples.support", "--state-dir", str(tmp_path)]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-2000:]
    found = json.loads(played.stdout.splitlines()[-1])
    assert found["ok"] and "49.00 was refunded" in found["answer"] and "waits for lead: refund" in played.stdout
    with open_audit(tmp_path) as journal:
        (run,) = journal.runs()
    again = ["--app", "examples.support", "--agent", "support", "--state-dir", str(tmp_path), "--json"]
    assert command_line(monkeypatch, "replay", run.run_id, *again) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert len(steps) == 4 and all(step["same"] and not step["forgotten"] for step in steps)


@pytest.mark.slow
def test_a_batch_is_answered_once_though_the_model_caller_and_then_the_whole_stack_die_while_it_is_out() -> None:
    """At half the price."""
    command = [sys.executable, "-m", "benchmarks.provider_batch", "--requests", "20"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5 * BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-2000:]
    found = json.loads(played.stdout.splitlines()[-1])
    assert found == {
        "requests": 20,
        "answered_once": 20,
        "batches_created": 1,
        "asked_twice": 0,
        "settled_ratio": 0.5,
        "audit_ok": True,
    }


@pytest.mark.slow
def test_the_frameworks_example_ends_well_for_each_framework() -> None:
    command = [sys.executable, "-m", "examples.frameworks"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-2000:]
    found = json.loads(played.stdout.splitlines()[-1])
    assert set(found) == set(CLERKS) and all(each["ok"] for each in found.values())
    assert played.stdout.count("waits for lead: refund") == len(CLERKS)
