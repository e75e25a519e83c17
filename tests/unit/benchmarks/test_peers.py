"""The benchmark beside other runtimes gives them the work that Airside has, and compares what was measured."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from airside import Action, Finish
from airside.stack.ids import parse_principal, parse_tenant
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.values import Identity, Limits
from benchmarks.ledger_app import bookkeeper, ledger_app, policy
from benchmarks.peers.__main__ import AIRSIDE, PEERS, summary
from benchmarks.peers.environments import NAMES, requirements
from benchmarks.peers.ledger import EFFECTS, RULES, check, checked_run, decide, governed_step, workload
from benchmarks.peers.turn import MARK, sample_of

POST = {"account": "acc-1", "cents": 101, "text": "monthly fee"}


@pytest.mark.parametrize("scopes", [("ledger",), ()])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("balance", {"account": "acc-0"}),
        ("balance", {"account": "blocked-3"}),
        ("post", POST),
        ("post", {**POST, "cents": 1_000_000}),
        ("post", {**POST, "cents": 1_000_001}),
        ("post", {**POST, "account": "blocked-0", "cents": 2_000_000}),
        *(("post", {**POST, "account": f"blocked-{i}"}) for i in range(18)),
    ],
)
def test_the_peers_rules_say_what_the_policy_says(
    tool: str, arguments: dict[str, Any], scopes: tuple[str, ...]
) -> None:
    who = Identity(principal=parse_principal("clerk"), tenant=parse_tenant("a"), roles=("clerk",), scopes=scopes)
    specs = {spec.name: spec for spec in ledger_app(1, memory=False).checked().specs}
    facts = Facts(tool=specs[tool], identity=who, arguments=arguments, labels=frozenset(), remaining=Limits(), now_us=0)
    outcome, rule = check(tool, arguments, scopes)
    decided = Evaluator(load_bundle(policy())).evaluate(facts)
    assert outcome == decided.outcome
    assert rule == decided.rule or rule == "default"
    assert specs[tool].effect == EFFECTS[tool]


def test_the_rules_are_as_many_as_the_policys() -> None:
    assert [rule.id for rule in RULES] == [rule.id for rule in load_bundle(policy()).rules]
    assert len(RULES) == 20


@pytest.mark.parametrize("done", range(9))
def test_the_peers_agent_decides_as_the_apps_does(done: int) -> None:
    """Read and post in turn, with the same arguments, and end after as many."""
    view = SimpleNamespace(history=[None] * done, inputs=lambda: {"steps": 8})
    decided, action = decide(done, 8), bookkeeper(view)  # type: ignore[arg-type]
    if decided is None:
        assert isinstance(action, Finish)
    else:
        assert isinstance(action, Action)
        assert decided == (action.tool, action.arguments)


def test_a_run_that_did_less_ends_the_benchmark() -> None:
    history = [governed_step(done, 8) for done in range(8)]
    checked_run(history)
    with pytest.raises(SystemExit, match="did not do its 8 steps"):
        checked_run(history[:-1])
    with pytest.raises(SystemExit):
        checked_run([*history[:-1], {"outcome": "deny"}])


def test_a_workload_takes_tenants_in_turn_and_no_run_twice() -> None:
    runs = workload("measured", 10)
    assert [run.tenant for run in runs[:21]] == [*range(20), 0]
    assert len({run.id for run in (*runs, *workload("warm", 10))}) == 400


def sample(rate: float, solo: float = 1.0) -> dict[str, Any]:
    """Return what a turn prints."""
    return {"steps_per_s": rate, "solo_ms": [solo, solo + 1, solo + 2], "cpu_s_per_1000": 1.0, "memory_mib": 100}


def test_the_default_is_compared_with_the_fastest_that_is_no_airside() -> None:
    """By the median of the rounds' own ratios, so that a slow round of the machine is in both of its figures."""
    samples = {name: [sample(100.0)] * 3 for name in (*AIRSIDE, *PEERS)}
    samples["airside_dedicated"] = [sample(900.0), sample(400.0), sample(1000.0)]
    samples["dbos_sqlite"] = [sample(300.0), sample(200.0), sample(250.0, solo=4.0)]
    found = summary(samples)
    assert found["airside_dedicated"] == 900.0
    assert found["dbos_sqlite"] == 250.0
    assert found["ratio_best_peer"] == 3.0
    assert found["solo_ms"]["dbos_sqlite"] == 2.0


def test_a_turns_sample_is_found_among_what_else_was_printed() -> None:
    assert sample_of(f'{MARK}{{"steps": 1}}\n{MARK}{{"steps": 2}}\nshutting down') == {"steps": 2}
    assert sample_of("Traceback") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_peers_requirements_are_pinned(name: str) -> None:
    lines = [line for line in requirements(name).read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines and all("==" in line for line in lines)


def test_what_the_peers_import_needs_no_airside() -> None:
    """Their environments have neither it nor its dependencies."""
    code = "import benchmarks.peers.turn, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"airside", "msgspec", "pydantic", "ray"} & {name.split(".")[0] for name in done.stdout.split()}
