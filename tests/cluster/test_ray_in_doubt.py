"""The queue of calls in doubt: listed with what a person needs, resolved while the run waits and after it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside import ReasonCode, RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.actors.rpc.layer import now_us
from airside.stack.errors import Misuse
from tests.on_ray import BOUND_S, Owner, a_stack, airside_cli, call, in_doubt, ledger_of, sigkill, submit, until

pytestmark = pytest.mark.ray

WAITS = {"tool_ms": 200, "doubt_wait_s": 60}
ENDS = {"tool_ms": 200, "doubt_wait_s": 0}


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose tool `wire` has its effect and, told to hang, never answers."""
    with a_stack(tmp_path_factory.mktemp("doubts"), "doubts", executors=1) as started:
        yield started


def wire(stack: Stack, to: str, limits: dict[str, int], **fields: str) -> RunHandle:
    """Submit a run whose call is soon in doubt."""
    return submit(stack, call("wire", to=to, amount=7, hang=True), limits=limits, **fields)


def keys(stack: Stack, tenant: str | None = None) -> list[str]:
    """Return the keys in doubt."""
    return [doubt.key for doubt in stack.in_doubt(tenant)]


def test_a_run_that_waits_is_listed_until_somebody_says(stack: Stack) -> None:
    began = now_us()
    handle = wire(stack, "listed", WAITS)
    in_doubt(stack, handle.run_id)
    (doubt,) = stack.in_doubt()
    assert (doubt.run_id, doubt.tenant, doubt.step, doubt.tool) == (handle.run_id, "acme", 1, "wire")
    assert doubt.arguments == {"to": "listed", "amount": 7, "hang": True} and doubt.key == f"{handle.run_id}:1"
    assert began < doubt.since_us < now_us() < doubt.until_us <= now_us() + 60_000_000
    assert keys(stack, "beta") == [] and keys(stack, "acme") == [doubt.key]
    assert stack.resolve(handle.run_id, happened=True, output={"ok": 1}, why="in the bank's list") == 1
    assert handle.result(timeout=BOUND_S).ok and keys(stack) == []
    assert "it happened: in the bank's list" in handle.story()
    with pytest.raises(Misuse, match="in doubt about nothing"):
        stack.resolve(handle.run_id, happened=True)


def test_a_run_that_ended_in_doubt_is_listed_until_it_is_put_on_record(stack: Stack) -> None:
    handle = wire(stack, "ended", ENDS)
    key = f"{handle.run_id}:1"
    assert handle.result(timeout=BOUND_S).in_doubt == (key,)
    (doubt,) = stack.in_doubt("acme")
    assert (doubt.key, doubt.until_us, doubt.arguments["to"]) == (key, 0, "ended")
    assert stack.resolve(handle.run_id, happened=True, output={"found": 1}, why="in the bank's list") == 1
    told = [line for line in stack.story(handle.run_id).splitlines() if "resolved by" in line]
    assert len(told) == 1 and "in the bank's list" in told[0] and '{"found":1}' in told[0]
    assert keys(stack) == []
    row = stack.query("SELECT tenant, type, body FROM events WHERE stream = ?", [f"doubt/{key}"]).to_pylist()
    said = json.loads(row[0]["body"])
    assert (row[0]["tenant"], row[0]["type"], len(row)) == ("acme", "EffectSettled", 1)
    assert said["happened"] is True and said["note"] == "in the bank's list" and said["by"].startswith("operator-")
    assert said["output"] == {"found": 1}
    result = handle.result(timeout=BOUND_S)
    assert (result.status, result.in_doubt) == (RunStatus.IN_DOUBT, (key,)), "the run ended as it ended"
    with pytest.raises(Misuse, match="it happened in the bank's list; what is on record stays"):
        stack.resolve(handle.run_id, happened=False)
    assert ledger_of(stack).amounts("ended") == [7] and stack.verify() == []


def test_a_run_that_was_killed_at_its_call_is_listed_too(stack: Stack) -> None:
    handle = submit(stack, call("wire", to="killed", amount=7, hang=True))
    until(lambda: ledger_of(stack).amounts("killed"), "the effect")
    assert keys(stack) == [], "it is at work"
    stack.kill(run=handle.run_id, why="by hand")
    assert handle.result(timeout=BOUND_S).reason_code is ReasonCode.KILLED_BY_OPERATOR
    assert keys(stack) == [f"{handle.run_id}:1"]
    assert stack.resolve(handle.run_id, happened=True) == 1 and keys(stack) == []


def test_a_branch_in_doubt_is_listed_and_settled_while_its_run_waits(stack: Stack) -> None:
    handle = wire(stack, "branch", WAITS, route="fan")
    (doubt,) = until(stack.in_doubt, "the branch's doubt")
    assert doubt.run_id == f"{handle.run_id}.1-1" and doubt.until_us > now_us()
    assert stack.resolve(doubt.run_id, happened=True, output={"to": "branch"}) == 1
    result = handle.result(timeout=BOUND_S)
    assert result.ok and result.answer[1][1] is True and keys(stack) == []


def test_a_branch_that_ended_in_doubt_is_listed_and_settled(stack: Stack) -> None:
    handle = wire(stack, "branch ended", ENDS, route="fan")
    assert handle.result(timeout=BOUND_S).answer[1][1] is False
    (doubt,) = stack.in_doubt()
    assert doubt.run_id == f"{handle.run_id}.1-1" and doubt.until_us == 0
    assert stack.resolve(doubt.run_id, happened=False, why="asked") == 1 and keys(stack) == []


@pytest.mark.parametrize("layer", ["driver", "journal", ""])
def test_the_list_and_what_settles_it_outlive(stack: Stack, layer: str) -> None:
    waits, ended = wire(stack, f"outlives {layer}", WAITS), wire(stack, f"ended before {layer}", ENDS)
    in_doubt(stack, waits.run_id)
    ended.result(timeout=BOUND_S)
    sigkill(stack, layer)
    assert set(keys(stack)) == {f"{waits.run_id}:1", f"{ended.run_id}:1"}
    assert stack.resolve(ended.run_id, happened=True) == 1
    assert stack.resolve(waits.run_id, happened=False) == 1
    assert waits.result(timeout=BOUND_S).answer == {"calls": 1, "failed": [0]}
    assert keys(stack) == [] and stack.verify() == []


def test_what_is_not_known_is_said(stack: Stack) -> None:
    for run, said in (("run_" + "0" * 24, "in doubt about nothing"), ("r1", "not a run id")):
        with pytest.raises(Misuse, match=said):
            stack.resolve(run, happened=True)


@pytest.mark.slow
def test_the_command_line_lists_and_settles(tmp_path: Path) -> None:
    job = {
        "job_id": "cli",
        "request": "do it",
        "tenant": "acme",
        "principal": "bob",
        "limits": ENDS,
        "inputs": {"actions": [call("wire", to="cli", amount=1, hang=True)]},
    }
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(job), encoding="utf-8")
    with Owner(tmp_path) as owner:
        here = ("--state-dir", str(owner.state))
        assert airside_cli("run", str(jobs), "--out", str(tmp_path / "out.parquet"), *here).returncode == 1
        listed = json.loads(airside_cli("in-doubt", "list", "--tenant", "acme", *here).stdout)
        assert (listed["tool"], listed["arguments"]["to"], listed["until_us"]) == ("wire", "cli", 0)
        assert listed["cause"] and str(owner.state / "keys") in listed["who_may_say"]
        assert listed["cause"] in airside_cli("in-doubt", *here).stdout
        assert airside_cli("in-doubt", "list", "--tenant", "beta", *here).stdout == ""
        resolved = airside_cli("in-doubt", "resolve", listed["run_id"], "--not-happened", "--why", "asked", *here)
        assert (resolved.returncode, resolved.stdout) == (0, "resolved 1\n")
        assert airside_cli("in-doubt", "list", *here).stdout == ""
        again = airside_cli("in-doubt", "resolve", listed["run_id"], "--happened", *here)
        assert again.returncode == 2 and "what is on record stays" in again.stderr
