"""The command line against stacks of its own: what it prints, what it exits with, and what a bad line costs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from airside.actors.journal.log import JOURNAL
from airside.actors.journal.projection import PROJECTION
from airside.stack.security.authenticator import issue_token
from airside.stack.security.keyring import KeyRing
from tests.on_ray import BOUND_S, ROOT, Owner, airside_cli, call, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """A stack that runs while the commands attach to it."""
    with Owner(tmp_path_factory.mktemp("cli") / "state") as started:
        yield started


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a batch that is over: a journal whose stack does not run."""
    folder = tmp_path_factory.mktemp("batch")
    BATCH["done"] = run_batch(folder)
    return folder


BATCH: dict[str, Any] = {}


def line(job_id: str, *actions: dict[str, Any], **fields: Any) -> str:
    """Return a line of a jobs file."""
    job = {"job_id": job_id, "request": "r", "tenant": "acme", "principal": "ana", "actions": list(actions)}
    return json.dumps({name: value for name, value in (job | fields).items() if value is not None})


def expired(folder: Path) -> str:
    """Return a token that was good until a minute ago, signed with the key the stack will have."""
    pem = KeyRing.open(folder / "keys").issuer_pem
    return issue_token(pem, tenant="acme", principal="ana", now_s=int(time.time()) - 120, ttl_s=60)


def run_batch(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a file in which every other line is wrong."""
    lines = [
        line("good-1", call("note", text="one")),
        '{"job_id": "cut", "request": "r", "tenant": "ac',
        line("good-2", call("look", topic="two")),
        line("extra", colour="red"),
        line("tool", call("no_such_tool")),
        line("type", call("look", topic=5)),
        line("expired", token=expired(folder), tenant=None, principal=None),
        line("route", route="nowhere"),
        line("huge", call("note", text="x" * 10_000_000)),
        "",
        '["not", "an", "object"]',
        line("big-argument", call("note", text="y" * 300_000)),
        line("good-3", call("note", text="three"), tenant="beta"),
    ]
    jobs = folder / "jobs.jsonl"
    jobs.write_text("\n".join(lines) + "\n")
    out = ["--out", str(folder / "out.parquet"), "--state-dir", str(folder)]
    return airside_cli("run", str(jobs), "--app", "tests.apps.notes", "--app-arg", f"work={folder}", *out)


EXPECTED = {
    "good-1": ("completed", ""),
    "row-1": ("request_invalid", "jobs.jsonl:2: "),
    "good-2": ("completed", ""),
    "extra": ("request_invalid", "jobs.jsonl:4: colour"),
    "tool": ("tool_unknown", "no_such_tool"),
    "type": ("tool_invalid_arguments", "look: topic: 5 is not of type"),
    "expired": ("auth_expired", "expired"),
    "route": ("unknown_route_mode", "nowhere"),
    "row-8": ("request_invalid", "jobs.jsonl:9: "),
    "row-9": ("request_invalid", "jobs.jsonl:11: a job is an object"),
    "big-argument": ("tool_invalid_arguments", "note.text"),
    "good-3": ("completed", ""),
}
"""How each line ends, and what its row says of where: an empty line is no row."""


def test_a_bad_line_is_a_row_that_names_its_place_and_the_rest_completes(state: Path) -> None:
    done = BATCH["done"]
    rows = pq.read_table(state / "out.parquet").to_pylist()
    assert [row["job_id"] for row in rows] == list(EXPECTED), done.stderr[-2000:]
    for row, (reason, place) in zip(rows, EXPECTED.values(), strict=True):
        assert row["reason_code"] == reason and place in row["detail"], row
        assert (row["status"] == "completed") is (reason == "completed")
    assert done.returncode == 1
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.items() >= {"jobs": 12, "completed": 3, "failed": 9, "audit_ok": True}.items()
    assert figures["out"] == str(state / "out.parquet") and figures["rejected"] == 6
    assert "extra: refused [request_invalid]" in done.stderr and "Traceback" not in done.stderr


def misused(*args: str, cwd: Path = ROOT) -> str:
    """Run a command that must exit with 2 and say why in one message; return that."""
    done = airside_cli(*args)
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.returncode, done.stderr[-2000:])
    return done.stderr


def test_a_typo_in_the_policy_stops_the_start_and_names_file_and_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: v1\nrules:\n  - id: reads\n    outcome: alow\n")
    app = tmp_path / "typo_app.py"
    app.write_text(
        "from pathlib import Path\n"
        "from airside import App, ReplayAgent\n"
        "from tests.apps import notes\n"
        "def create_app(policy):\n"
        "    made = notes.create_app('unused')\n"
        "    fields = {n: getattr(made, n) for n in ('agents', 'tools', 'routes', 'directory')}\n"
        "    return App(**fields, policy=Path(policy))\n"
    )
    (tmp_path / "jobs.jsonl").write_text(line("a"))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from airside.cli import main; main()"
    options = ["--app", "typo_app", "--app-arg", f"policy={policy}", "--state-dir", str(tmp_path / "s")]
    command = [str(tmp_path), "run", str(tmp_path / "jobs.jsonl"), "--out", str(tmp_path / "out.parquet"), *options]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert done.returncode == 2 and f"{policy}:4" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_a_misuse_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    here = ["--state-dir", str(tmp_path)]
    (tmp_path / "jobs.jsonl").write_text(line("a"))
    jobs, out = str(tmp_path / "jobs.jsonl"), str(tmp_path / "o.parquet")
    assert "no stack is up" in misused("status", *here)
    assert "has no journal" in misused("audit", "verify", *here)
    assert "has no keys" in misused("token", "issue", "acme", "ana", *here)
    assert "no_such_module" in misused("up", "--app", "no_such_module", *here)
    assert "write NAME=VALUE" in misused("up", "--app", "tests.apps.notes", "--app-arg", "work", *here)
    assert "work" in misused("up", "--app", "tests.apps.notes", *here)
    assert "there is no App" in misused("up", "--app", "tests.helpers", *here)
    missing = str(tmp_path / "missing.jsonl")
    assert "missing.jsonl" in misused(
        "run", missing, "--out", out, "--app", "tests.apps.notes", "--app-arg", "work=w", *here
    )
    assert "no stack is up" in misused("run", jobs, "--out", out, *here)


# On a stack that runs.


def submit_by_cli(owner: Owner, tmp_path: Path, *lines: str) -> subprocess.Popen[str]:
    """Start `airside run` on the running stack."""
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    command = ["run", str(tmp_path / "jobs.jsonl"), "--out", str(tmp_path / "out.parquet")]
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("airside")), *command, "--state-dir", str(owner.state)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listed(owner: Owner, wanted: int) -> dict[str, dict[str, Any]]:
    """Return the approvals that wait, by who is to be paid, once there are as many as wanted."""

    def look() -> dict[str, dict[str, Any]]:
        done = airside_cli("approvals", "list", "--state-dir", str(owner.state))
        assert done.returncode == 0, done.stderr
        found = [json.loads(text) for text in done.stdout.splitlines()]
        by_name = {approval["arguments"].get("to", approval["tool"]): approval for approval in found}
        return by_name if len(by_name) >= wanted else {}

    return until(look, f"{wanted} approvals")


def paying(name: str) -> str:
    """Return a line whose run waits for an approval; without an app there are no fields beyond a job's own."""
    inputs = {"actions": [call("pay", to=name, amount=9)]}
    return line(name, actions=None, inputs=inputs, limits={"max_rejections": 0})


def test_approvals_are_listed_and_decided_by_command(owner: Owner, tmp_path: Path) -> None:
    here = ["--state-dir", str(owner.state)]
    asking = call("ask_human", question="Which?", choices=["this", "that"])
    lines = [paying(name) for name in ("cli-yes", "cli-no", "cli-edit", "cli-kill")]
    batch = submit_by_cli(owner, tmp_path, *lines, line("cli-ask", actions=None, inputs={"actions": [asking]}))
    waits = listed(owner, 5)
    approval = {name: waits[name]["approval_id"] for name in waits}
    (to,) = (origin for origin in waits["cli-yes"]["origins"] if origin["path"] == "to")
    assert (to["value"], to["part"], to["origin"], to["detail"]) == ("cli-yes", "authority", "request", "")
    shown = airside_cli("approvals", "--tenant", "acme", *here)
    assert shown.returncode == 0 and "     to: 'cli-yes'  <- request" in shown.stdout.splitlines(), shown.stderr
    assert airside_cli("approvals", "approve", approval["cli-yes"], "--as", "ana", *here).returncode == 2
    yes = airside_cli("approvals", "approve", approval["cli-yes"], "--as", "lea", *here)
    assert (yes.returncode, yes.stdout) == (0, "approved\n")
    token = airside_cli("token", "issue", "acme", "leo", *here).stdout.strip()
    no = airside_cli("approvals", "reject", approval["cli-no"], "--token", token, "--note", "not now", *here)
    assert (no.returncode, no.stdout) == (0, "rejected\n")
    assert airside_cli("approvals", "edit", approval["cli-edit"], "{", "--as", "lea", *here).returncode == 2
    other = json.dumps({"to": "cli-edit", "amount": 1})
    assert airside_cli("approvals", "edit", approval["cli-edit"], other, "--as", "lea", *here).stdout == "edited\n"
    assert airside_cli("approvals", "approve", approval["ask_human"], "--as", "lea", *here).returncode == 2
    answered = airside_cli("approvals", "answer", approval["ask_human"], "that", "--as", "lea", *here)
    assert (answered.returncode, answered.stdout) == (0, "answered\n"), answered.stderr
    run_id = waits["cli-kill"]["run_id"]
    killed = airside_cli("kill", "--run", run_id, "--why", "by hand", *here)
    assert (killed.returncode, killed.stdout) == (0, "killed 1\n")
    batch.communicate(timeout=BOUND_S)
    rows = {row["job_id"]: row["reason_code"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert rows == {
        "cli-yes": "completed",
        "cli-no": "approval_rejected",
        "cli-edit": "completed",
        "cli-kill": "killed_by_operator",
        "cli-ask": "completed",
    }
    told = airside_cli("audit", "story", waits["ask_human"]["run_id"], *here).stdout
    assert '"answer":"that","chosen":true,"by":"lea"' in told and "vote: lea (lead) answers" in told, told
    story = airside_cli("audit", "story", waits["cli-edit"]["run_id"], *here).stdout
    assert "approval asked: pay" in story and "vote: lea (lead) edits to" in story, story
    amounts = [owner.ledger.amounts(name) for name in rows]
    assert amounts == [[9], [], [1], [], []] and batch.returncode == 1


def test_status_shows_every_layer(owner: Owner) -> None:
    done = airside_cli("status", "--json", env={"AIRSIDE_STATE_DIR": str(owner.state)})
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and {"driver", "journal", "policy", "executor/0"} <= set(shown)
    assert all(layer["ready"] for layer in shown.values())
    screen = airside_cli("status", "--state-dir", str(owner.state))
    assert screen.returncode == 0 and len(screen.stdout) < 3000 and "waiting for people: 0" in screen.stdout
    files = airside_cli("logs", "driver", "--state-dir", str(owner.state)).stdout.splitlines()
    assert Path(files[1].split()[-1]).is_file() and str(shown["driver"]["pid"]) in files[1]


def test_killing_nothing_is_said(owner: Owner) -> None:
    here = ["--state-dir", str(owner.state)]
    assert airside_cli("kill", "--all", *here).stdout == "killed 0\n"
    assert "kill: say" in misused("kill", *here)
    assert "no live run" in misused("kill", "--run", "run_" + "0" * 24, *here)


def test_the_audit_of_a_stack_that_runs(owner: Owner, tmp_path: Path) -> None:
    here = ["--state-dir", str(owner.state)]
    batch = submit_by_cli(owner, tmp_path, line("told", actions=None))
    assert batch.wait(timeout=BOUND_S) == 0
    check_audit(here, "told")
    entries = airside_cli("audit", "follow", "--tenant", "acme", "--timeout", "0", *here)
    types = {json.loads(text)["event"]["type"] for text in entries.stdout.splitlines()}
    assert types >= {"RunSubmitted", "RunEnded"}, entries.stderr
    assert "read-only" in misused("audit", "query", "DELETE FROM events", *here)


def check_audit(here: list[str], job_id: str) -> None:
    """Ask a journal for a run, have it told, and verify."""
    rows = airside_cli("audit", "query", f"SELECT run_id, job_id FROM runs WHERE job_id = '{job_id}'", *here)
    assert rows.returncode == 0, rows.stderr
    found = json.loads(rows.stdout.splitlines()[0])
    story = airside_cli("audit", "story", found["run_id"], *here)
    assert story.returncode == 0 and "ended: completed" in story.stdout
    listed = airside_cli("runs", "--json", "--status", "completed", *here)
    assert found["run_id"] in [json.loads(text)["run_id"] for text in listed.stdout.splitlines()], listed.stderr
    assert airside_cli("runs", "show", found["run_id"], *here).stdout.startswith(f"{found['run_id']}: completed")
    verified = airside_cli("audit", "verify", *here)
    assert (verified.returncode, verified.stdout) == (0, "the journal is whole\n")


# On the journal of a stack that does not run.


def test_the_audit_of_a_stack_that_does_not_run(state: Path) -> None:
    here = ["--state-dir", str(state)]
    check_audit(here, "good-1")
    assert "has no run" in misused("audit", "story", "run_" + "0" * 24, *here)
    assert "read-only" in misused("audit", "query", "DROP TABLE events", *here)
    assert "no stack is up" in misused("status", *here)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entries SET body = replace(body, 'completed', 'cancelled') WHERE type = 'RunEnded'",
        "DELETE FROM entries WHERE type = 'ActionGated'",
        "DELETE FROM entries WHERE position = (SELECT max(position) FROM entries WHERE tenant = 'acme')",
        "DELETE FROM entries",
        "UPDATE entries SET tenant = 'beta' WHERE tenant = 'acme'",
        "UPDATE entries SET at_us = at_us + 1000000",
        "UPDATE outcomes SET status = 'completed', reason_code = 'completed'",
    ],
)
def test_a_journal_that_was_tampered_with_does_not_verify(state: Path, tmp_path: Path, sql: str) -> None:
    for name in (JOURNAL, "checkpoints.jsonl"):
        shutil.copy(state / name, tmp_path / name)
    for name in ("keys", "projection"):
        shutil.copytree(state / name, tmp_path / name)
    if "entries" in sql:
        with closing(sqlite3.connect(tmp_path / JOURNAL)) as log, log:
            log.execute(sql)
    else:
        with duckdb.connect(str(tmp_path / PROJECTION)) as database:
            database.execute(sql)
    done = airside_cli("audit", "verify", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "the journal is not whole\n"), done.stderr
    assert done.stderr.strip()


def test_a_token_proves_who_it_was_issued_for(state: Path) -> None:
    done = airside_cli("token", "issue", "acme", "ana", "--ttl", "60", "--state-dir", str(state))
    assert done.returncode == 0 and done.stdout.count(".") == 2
    assert "do you mean ana?" in misused("token", "issue", "acme", "anna", "--state-dir", str(state))
    assert misused("token", "issue", "Not A Tenant", "ana", "--state-dir", str(state)).startswith("airside: ")


def test_down_stops_a_stack_and_whoever_keeps_it_up_in_silence(owner: Owner) -> None:
    """From another terminal, in good order; its logs are found afterwards."""
    here = ["--state-dir", str(owner.state)]
    done = airside_cli("down", *here)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    out, err = owner.process.communicate(timeout=BOUND_S)
    assert (owner.process.returncode, out, err) == (0, "", "")
    assert "no stack is up" in misused("down", *here)
    assert "Driver" in airside_cli("logs", "driver", "--tail", "50", *here).stdout


def test_a_stack_on_a_ray_that_runs_is_left_up_and_stopped(tmp_path: Path, local_ray: None) -> None:
    """`up --address --detach` returns, other commands find it, and `down` ends it and not that Ray."""
    import ray

    here, joined = ["--state-dir", str(tmp_path)], {"RAY_AUTH_MODE": "token"}
    app = ["--app", "tests.apps.notes", "--app-arg", f"work={tmp_path}"]
    address = ray.get_runtime_context().gcs_address
    up = airside_cli("up", *app, *here, "--address", address, "--detach", env=joined)
    assert up.returncode == 0 and up.stdout.startswith("up; ") and not up.stderr, up.stderr
    assert airside_cli("status", *here).returncode == 0
    down = airside_cli("down", *here)
    assert (down.returncode, down.stdout, down.stderr) == (0, "stopped\n", "")
    assert ray.is_initialized() and "no stack is up" in misused("status", *here)
