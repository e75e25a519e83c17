"""Rules on where a tool's code runs: `when: {lane: ...}`, and `require: sandbox`, which makes a rule stricter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airside.stack.directory import load_directory
from airside.stack.errors import InvalidConfig
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.policy_check import check_policy
from airside.stack.reasons import ReasonCode
from airside.stack.schema.toolspec import ToolSpec
from tests.helpers import spec
from tests.unit.stack.policy.test_policy import HEAD, allows, evaluate, facts, rule

DIRECTORY = load_directory("tenants: {acme: {principals: {ann: {roles: [clerk]}}}}")
SHARED, APART, BOXED = (msgspec.structs.replace(spec(), lane=lane) for lane in ("shared", "process", "sandbox"))


@pytest.mark.parametrize(("tool", "holds"), [(SHARED, False), (APART, True), (BOXED, True)])
def test_a_rule_may_be_about_tools_of_some_lanes(tool: ToolSpec, holds: bool) -> None:
    assert allows({"lane": ["process", "sandbox"]}, tool=tool) is holds


def test_a_rule_that_requires_a_sandbox_allows_what_has_one() -> None:
    required = rule("boxed", "allow", require="sandbox")
    decided = evaluate(required, tool=BOXED)
    assert (decided.outcome, decided.rule) == ("allow", "boxed")


@pytest.mark.parametrize("tool", [SHARED, APART])
@pytest.mark.parametrize("outcome", ["allow", "require_approval"])
def test_it_denies_what_has_none(tool: ToolSpec, outcome: str) -> None:
    """Whatever else would allow it: a rule that is stricter is not passed by."""
    required = rule("boxed", outcome, require="sandbox", code="box", description="Only in a box.")
    decided = evaluate(required, rule("anything", "allow"), tool=tool)
    assert (decided.outcome, decided.reason_code) == ("deny", ReasonCode.SANDBOX_REQUIRED)
    assert (decided.rule, decided.code, decided.detail) == ("boxed", "box", "Only in a box.")


def test_it_says_nothing_of_calls_it_does_not_match() -> None:
    required = rule("boxed", "allow", {"tool": ["other"]}, require="sandbox")
    assert evaluate(required, rule("anything", "allow"), tool=SHARED).outcome == "allow"
    assert evaluate(required, tool=SHARED).reason_code is ReasonCode.POLICY_DENIED
    assert facts().tool.lane == "shared"


def test_only_what_lets_a_call_through_requires_anything() -> None:
    with pytest.raises(InvalidConfig, match=r"(?s)policy:3.*require is of a rule that allows or asks"):
        load_bundle(HEAD + "- id: a\n  outcome: deny\n  require: sandbox\n")
    with pytest.raises(InvalidConfig, match="lane"):
        load_bundle(HEAD + "- id: a\n  outcome: deny\n  when: {lane: [virtual]}\n")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("when: {tool: [pay], lane: [sandbox]}", r"none of \['pay'\] has this effect, risk and lane"),
        ("when: {tool: [pay]}\n  require: sandbox", r"none of \['pay'\] has a sandbox, so that it allows nothing"),
    ],
)
def test_a_rule_that_could_allow_nothing_is_refused_at_load(body: str, text: str) -> None:
    bundle = load_bundle(f"{HEAD}- id: a\n  outcome: allow\n  {body}\n")
    for tool, refused in ((SHARED, True), (BOXED, False)):
        if refused:
            with pytest.raises(InvalidConfig, match=text):
                check_policy(bundle, [tool], DIRECTORY)
        else:
            check_policy(bundle, [tool], DIRECTORY)


def test_a_spec_without_a_lane_is_of_the_shared_one() -> None:
    """As journals have it that were written before there were lanes."""
    known: dict[str, Any] = msgspec.to_builtins(SHARED)
    del known["lane"]
    assert msgspec.convert(known, ToolSpec) == SHARED
