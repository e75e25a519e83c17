"""A stack on one screen, however much there is of it; where its logs lie; and what is known to be refused later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.app import App
from airside.actors.client.stack_record import is_recorded, keep, kept_by, read_record, write_record
from airside.actors.process.logs import LINK, log_files
from airside.actors.process.pulse import born
from airside.options import bounded, brief
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.directory import load_directory
from airside.stack.operations.quantities import span
from airside.stack.policy.pricing import unaffordable, unpriced
from airside.stack.run.agents import priced
from airside.status_cli import EXPECTED, screen
from tests.apps.notes import create_app
from tests.commands import airside
from tests.helpers import spec

COUNTS = st.integers(0, 10**6)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


def layers_of(tenants: int, runtimes: int = 1, **down: str) -> dict[str, dict[str, Any]]:
    """Return what a stack with so many tenants and processes answers."""
    health = {"pid": 12345, "node": "f" * 56, "ready": True, "up_s": 99.5, "logs": "/tmp/ray/logs"}
    found: dict[str, dict[str, Any]] = {name: dict(health) for name in EXPECTED}
    found |= {f"runtime/tenant-{n}/abcdef": {**health, "runs": 3, "working": 2} for n in range(runtimes)}
    load = {f"tenant-{n}": {"running": n % 7, "waiting": n, "estimate": 2.0} for n in range(tenants)}
    found["driver"] |= {"live": 9, "parked": 2, "in_doubt": ["run_x"], "tenants": load, "runtimes": list(found)}
    found["driver"] |= {"layers_held": [f"policy: about 10.{n} s by run_x at gate.py:{n} in decide" for n in range(9)]}
    found["policy"] |= {"used": {f"tenant/tenant-{n}": {"cost_microusd a day": n} for n in range(tenants)}}
    found["approvals"] |= {"pending": 4}
    return found | {name.replace("_", "/"): {"down": why} for name, why in down.items()}


def whole(**fields: Any) -> dict[str, Any]:
    """Return what is known of the stack itself."""
    return {"stack": "default", "state_dir": "/state", "warnings": [], "switches": [], "ready": True} | fields


def test_the_screen_says_what_an_operator_asks_first() -> None:
    """What is down, where runs are, who waits, what is switched off, what was spent, and what will be refused."""
    found = layers_of(3, executor_1="ActorDiedError")
    found["http/f-0"] = {**found["journal"], "url": "http://127.0.0.1:8080"}
    found["executor/0"]["quarantined"] = {"files": "server files is in quarantine"}
    text = "\n".join(
        screen(
            found,
            whole(warnings=["tool pay cannot be called"], switches=[{"text": "tool pay is switched off by op: wrong"}]),
        )
    )
    for part in (
        "DOWN executor/1: ActorDiedError",
        "1 down",
        "serving on http://127.0.0.1:8080",
        "12345",
        "9 live: 3 at work, 3 queued, 2 parked, 1 in doubt; waiting for people: 4",
        "switched off: tool pay",
        "in quarantine: server files is in quarantine",
        "was held, and restarted: policy: about 10.8 s by run_x at gate.py:8 in decide",
        "tenant tenant-2: 2 at work, 2 queued",
        "spent of budgets, tenant/tenant-2: 2 cost_microusd a day",
        "warning: tool pay cannot be called",
        "/state/logs",
    ):
        assert part in text, text


def test_the_screen_is_one_screen_however_much_there_is() -> None:
    """Hundreds of tenants, runtimes, switches and deaths are counted, not listed."""
    found = layers_of(500, 300, **{f"runtime_{n}": "died" for n in range(40)})
    lines = screen(found, whole(switches=[{"text": f"tool t{n} " + "x" * 500} for n in range(90)]))
    assert len(lines) <= 50 and sum(map(len, lines)) < 6_000, "\n".join(lines)
    assert "  ... and 494 more (--json)" in lines and any("more" in line for line in lines)


@settings(max_examples=30)
@given(st.dictionaries(NAMES, st.tuples(COUNTS, COUNTS), max_size=30), NAMES)
def test_nothing_that_a_stack_answers_breaks_the_screen(tenants: dict[str, tuple[int, int]], why: str) -> None:
    """Whatever names and reasons there are, each line is a line and does nothing to a terminal."""
    found = layers_of(0)
    found["driver"]["tenants"] = {brief(n, 80): {"running": r, "waiting": w} for n, (r, w) in tenants.items()}
    found["memory"] = {"down": why}
    for line in screen(found, whole(warnings=[why], switches=[{"text": why}])):
        assert line.isprintable() and len(line) < 400


def test_a_stack_without_its_driver_is_shown_all_the_same() -> None:
    """What the others say stands; what only it knows is left out."""
    found = layers_of(2) | {"driver": {"down": "it is not there"}}
    text = "\n".join(screen(found, whole(ready=False)))
    assert "DOWN driver: it is not there" in text and "spent of budgets" in text and "runs:" not in text


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (0, "0ms"),
        (1500, "2ms"),
        (1_500_000, "1.5s"),
        (119_000_000, "119.0s"),
        (7_200_000_000, "2.0h"),
        (10**12, "11.6d"),
    ],
)
def test_a_length_of_time_reads_well(us: int, shown: str) -> None:
    """In the unit in which it is a small number."""
    assert span(us) == shown


@settings(max_examples=30)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_cut_stays_short_json(value: Any) -> None:
    """Whatever arguments are, what the list shows of them can be read as JSON, and is no book."""
    assert len(json.dumps(bounded({"a": value, "b": "x" * 10_000}))) < 20_000


# Logs.


def write_log(folder: Path, pid: int, actor: str, text: str = "") -> Path:
    """Write a worker's log as Ray does."""
    path = folder / f"worker-{'0' * 56}-01000000-{pid}.err"
    path.write_text(f":job_id:01000000\n:actor_name:{actor}\n{text}")
    return path


def test_every_layers_log_is_found_by_its_process(tmp_path: Path) -> None:
    """The living by their pid; the dead by what they were; what is not ours is none."""
    live = write_log(tmp_path, 1, "ToolExecutor")
    write_log(tmp_path, 2, "Driver")
    write_log(tmp_path, 3, "SomebodyElses")
    (tmp_path / "raylet.out").write_text("x")
    (tmp_path / "worker-zz.err").write_text(":actor_name:Driver\n")
    found = log_files(tmp_path, {1: "executor/1"})
    assert [(f.layer, f.pid, f.is_live) for f in found] == [("driver", 2, False), ("executor/1", 1, True)]
    assert found[1].path == live and found[1].size == live.stat().st_size


def test_the_logs_of_a_stack_that_is_gone_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the link in its state directory; with --tail, the end of each file; by layer."""
    folder, state = tmp_path / "session", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    path = write_log(folder, 7, "Journal", "".join(f"line {n}\n" for n in range(100)))
    write_log(folder, 8, "Driver", "other\n")
    (state / LINK).symlink_to(folder)
    here = ["--state-dir", str(state)]
    assert airside(monkeypatch, "logs", *here) == 0
    said = capsys.readouterr().out
    assert str(path) in said and "gone" in said and "raylet.out" in said
    assert airside(monkeypatch, "logs", "journal", "--tail", "2", *here) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["line 98", "line 99"]
    assert (
        airside(monkeypatch, "logs", "polcy", *here) == 2 and airside(monkeypatch, "logs", "--tail", "-1", *here) == 2
    )
    assert airside(monkeypatch, "logs", "--state-dir", str(tmp_path)) == 2


# Who keeps a stack up.


def test_who_keeps_a_stack_up_is_known_until_it_ends(tmp_path: Path) -> None:
    """A process under the same number that began at another time is another one."""
    write_record(tmp_path, {"id": "a"})
    assert kept_by(read_record(tmp_path)) == 0
    keep(tmp_path, "b")
    assert kept_by(read_record(tmp_path)) == 0, "it is another stack's record"
    keep(tmp_path, "a")
    assert kept_by(read_record(tmp_path)) == os.getpid() and is_recorded(tmp_path, "a")
    assert kept_by({"keeper": [os.getpid(), born(os.getpid()) + 1]}) == 0
    assert kept_by({"keeper": [2**22 + 1, 1]}) == 0 and kept_by({"keeper": "x"}) == 0


def test_a_directory_that_is_away_stops_no_stack(tmp_path: Path) -> None:
    """Only a record that was removed or replaced does: a disk that is not there for a moment is no order."""
    assert is_recorded(tmp_path / "away", "a") and not is_recorded(tmp_path, "a")


def test_a_stack_of_its_own_ray_cannot_be_left_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Ray ends with the command, so that is said before anything starts."""
    assert airside(monkeypatch, "up", "--app", "tests.apps.notes", "--detach") == 2
    assert "--address" in capsys.readouterr().err


@pytest.mark.parametrize(("tokens", "cost", "is_short"), [(100, 100, False), (101, 0, True), (0, 101, True)])
def test_an_agent_whose_decision_no_run_can_pay_for_is_warned_of(tokens: int, cost: int, is_short: bool) -> None:
    directory = load_directory(
        "tenants: {acme: {principals: {ana: {limits: {max_tokens: 100, max_cost_microusd: 100}}}}, beta: {}}"
    )
    agent = priced(tokens=tokens, cost_microusd=cost)(lambda view: None)
    warned = unaffordable(directory, {"a": agent})
    assert bool(warned) is is_short and all("acme" in text and "beta" not in text for text in warned)


# What has no price.

BUDGETS = ["cost_microusd", "tokens", "steps", "tool_calls", "tool:pay", "wall_ms"]


@settings(max_examples=60)
@given(
    org=st.sets(st.sampled_from(BUDGETS)),
    own=st.sets(st.sampled_from(BUDGETS)),
    tool_price=st.none() | st.integers(0, 9),
    agent_price=st.none() | st.integers(0, 9),
)
def test_what_is_warned_of_is_what_the_gate_refuses(
    org: set[str], own: set[str], tool_price: int | None, agent_price: int | None
) -> None:
    """A tool or agent is named exactly if some tenant's budgets let nothing without a price be bought."""
    budgets = {
        name: [f"{{unit: '{unit}', limit: 9}}" for unit in sorted(units)] for name, units in (("o", org), ("t", own))
    }
    directory = load_directory(
        f"budgets: [{', '.join(budgets['o'])}]\n"
        f"tenants:\n  acme: {{budgets: [{', '.join(budgets['t'])}]}}\n  beta: {{}}\n"
    )
    free = priced(cost_microusd=agent_price or 0)(lambda view: None)
    agents = {"a": (lambda view: None) if agent_price is None else free}
    warned = unpriced(directory, [spec(cost_microusd=tool_price)], agents)
    spending = BudgetReservations(*directory.caps())
    refused = [tenant for tenant in ("acme", "beta") if spending.must_be_priced(tenant)]  # type: ignore[arg-type]
    assert any("tool pay cannot be called" in text for text in warned) is bool(refused and tool_price is None)
    assert any("agent a cannot decide" in text for text in warned) is bool(refused and agent_price is None)
    assert all(tenant in text for text in warned for tenant in refused)


def test_an_app_says_it_when_it_is_checked(tmp_path: Path) -> None:
    """In the result of `checked()`, before anything starts; an app whose prices are known says nothing."""
    made = create_app(tmp_path)
    assert made.checked().warnings == ()
    fields = {name: getattr(made, name) for name in ("agents", "tools", "routes", "policy")}
    budgets = "tenants: {acme: {open: true, open_roles: [lead], budgets: [{unit: cost_microusd, limit: 5}]}}"
    poor = App(**fields, directory=budgets)
    (tools, agents) = poor.checked().warnings
    assert "cannot be called" in tools and "acme" in tools and "@priced" in agents
