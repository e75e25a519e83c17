"""Spellings: no other way to write a value gets a call past a rule that forbids it; to be allowed it must be plain."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.contracts.labels import SYSTEM_LABELS, check_label
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.policy.bundle import Bundle, load_bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.reasons import ReasonCode
from airside.stack.text.spelling import alike, caseless, is_plain, is_tidy, joined, plain
from airside.stack.values import Limits, ValueOrigin
from tests.helpers import identity, spec


def decide(arguments: Any, *rules: dict[str, Any], **fields: Any) -> str:
    """Return the outcome of rules for a call with these arguments; an error fails the test."""
    bundle = Bundle(version="v1", rules=list(rules))  # type: ignore[arg-type]
    facts = {"labels": frozenset(), "remaining": Limits(), "now_us": 0, "origins": ()} | fields
    who = identity(attributes={"mine": ("café", "o2")})
    decided = Evaluator(bundle).evaluate(Facts(tool=spec(), identity=who, arguments=arguments, **facts))  # type: ignore[arg-type]
    assert decided.reason_code != ReasonCode.POLICY_ERROR, decided.detail
    return decided.outcome


ALLOW = {"id": "all", "outcome": "allow"}


def deny(**test: Any) -> dict[str, Any]:
    """Return a rule that denies what meets a test."""
    return {"id": "no", "outcome": "deny", "when": {"arguments": [test]}}


def allow(**test: Any) -> dict[str, Any]:
    """Return a rule that allows what meets a test."""
    return {"id": "yes", "outcome": "allow", "when": {"arguments": [test]}}


FORBIDDING: list[dict[str, Any]] = [
    {"path": "to", "op": "eq", "value": "café eve"},
    {"path": "to", "op": "in", "value": ["bob", "café eve"]},
    {"path": "to", "op": "matches", "value": ".*café eve.*"},
    {"path": "to", "op": "matches", "value": "CAFÉ.*", "ignore_case": True},
    {"path": "to", "op": "contains", "value": "é e"},
    {"path": "to", "op": "contains", "value": "É E", "ignore_case": True},
    {"path": "to", "op": "starts_with", "value": "café"},
    {"path": "to", "op": "ends_with", "value": "eve"},
    {"path": "to", "op": "ne", "value": "café ann"},
    {"path": "to", "op": "not_in", "value": ["café ann", "bob"]},
    {"path": "to", "op": "not_in", "identity": "attributes.mine"},
    {"path": "to.*", "op": "eq", "value": "café eve"},
    {"path": "to.*", "op": "not_in", "value": ["café ann"]},
    {"path": "to.*", "op": "ne", "value": "café ann"},
    {"path": "to.*", "op": "matches", "value": r"caf\p{L}\s.*"},
    {"path": "to.0", "op": "eq", "value": "café eve"},
]


def wide(text: str) -> str:
    """Return a text in full-width characters."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


SPELL: dict[str, Callable[[str], str]] = {
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "wide": wide,
    "look-alike": lambda text: text.translate({ord("a"): "\u0430", ord("e"): "\u0435", ord("c"): "\u0441"}),
    "spaced": lambda text: text.replace(" ", "\u2003\n\t"),
    "broken": lambda text: text.replace(" ", "\n"),
    "joined": lambda text: "\u200b".join(text),
    "shy": lambda text: "\u00ad" + text + "\u2060",
    "tagged": lambda text: text + "\U000e0041\ufe0f",
    "padded": lambda text: f" {text}\u00a0",
}
SHAPE: dict[str, Callable[[Any], Any]] = {
    "itself": lambda value: value,
    "listed": lambda value: [value],
    "nested": lambda value: [[value]],
    "further": lambda value: [value, "café ann"],
    "after": lambda value: ["café ann", value] if not isinstance(value, list) else [*value, "café ann"],
}


@pytest.mark.parametrize("test", FORBIDDING, ids=lambda test: f"{test['path']} {test['op']}")
@settings(deadline=None, max_examples=60)
@given(spellings=st.lists(st.sampled_from(sorted(SPELL)), max_size=3), shape=st.sampled_from(sorted(SHAPE)))
def test_no_spelling_and_no_list_turns_a_deny_into_an_allow(
    test: dict[str, Any], spellings: list[str], shape: str
) -> None:
    """For any operator, a rule that asks included."""
    text = "café eve"
    assert decide({"to": text}, deny(**test), ALLOW) == "deny"
    for each in spellings:
        text = SPELL[each](text)
    value = SHAPE[shape](text)
    if test["path"] == "to.0" and shape == "after":
        value = SHAPE["further"](text)  # the first is what the rule is about
    ask = deny(**test) | {"outcome": "require_approval", "approval": {"roles": ["boss"]}}
    assert decide({"to": value}, deny(**test), ALLOW) == "deny"
    assert decide({"to": value}, ask, ALLOW) == "require_approval"


@pytest.mark.parametrize(
    "test",
    [
        {"path": "to", "op": "eq", "value": "café ann"},
        {"path": "to", "op": "matches", "value": "café .*"},
        {"path": "to", "op": "ne", "value": "café eve"},
        {"path": "to", "op": "not_in", "value": ["café eve"]},
        {"path": "to.*", "op": "ne", "value": "café eve"},
        {"path": "to", "op": "in", "identity": "attributes.mine"},
        {"path": "to", "op": "ends_with", "value": "ann"},
    ],
    ids=lambda test: f"{test['path']} {test['op']}",
)
@given(
    spelling=st.sampled_from(["decomposed", "wide", "joined", "shy", "tagged"]), name=st.sampled_from(["ann", "eve"])
)
def test_what_allows_takes_a_text_only_as_it_is_written_plainly(test: dict[str, Any], spelling: str, name: str) -> None:
    """Whatever its operator."""
    assert decide({"to": SPELL[spelling](f"café {name}")}, allow(**test)) == "deny"
    plain_one = "café" if "identity" in test else "café ann"
    assert decide({"to": plain_one}, allow(**test)) == "allow"


@pytest.mark.parametrize("shape", sorted(SHAPE))
@pytest.mark.parametrize("spelling", sorted(SPELL))
@pytest.mark.parametrize("path", ["to", "to.*"])
def test_to_allow_all_but_one_is_to_forbid_that_one(path: str, spelling: str, shape: str) -> None:
    """In any spelling, and among others."""
    value = SHAPE[shape](SPELL[spelling]("café eve"))
    for test in ({"op": "ne", "value": "café eve"}, {"op": "not_in", "value": ["café eve", "x"]}):
        assert decide({"to": value}, allow(path=path, **test)) == "deny"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["café eve", "x", "bob", "", "café\u00a0eve"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "to", "0"]), inner, max_size=2),
    max_leaves=5,
)


def holds_nothing_sure(value: Any) -> bool:
    """Whether null, an object or what is forbidden is in a value."""
    if isinstance(value, list):
        return any(map(holds_nothing_sure, value))
    return value is None or isinstance(value, dict) or (isinstance(value, str) and "eve" in value)


@given(value=VALUES, path=st.sampled_from(["to", "to.*", "to.0", "to.a"]))
def test_to_allow_all_but_one_is_to_allow_neither_null_nor_an_object(value: Any, path: str) -> None:
    """Nor a list that has one: what is not there, or has parts that nobody compares, is no other value."""
    looked_at = value.get("a", None) if path == "to.a" and isinstance(value, dict) else value
    for test in ({"op": "ne", "value": "café eve"}, {"op": "not_in", "value": ["café eve", "y"]}):
        told = decide({"to": value}, allow(path=path, **test))
        if path != "to.0" and holds_nothing_sure(looked_at):
            assert told == "deny"
        elif path == "to":
            assert told == "allow"
        # To forbid all but one is as before: whatever is not that one is forbidden.
        if value is None or isinstance(value, dict):
            assert decide({"to": value}, deny(path="to", **test), ALLOW) == "deny"


@pytest.mark.parametrize(
    ("arguments", "path", "outcome"),
    [
        ({"rows": [{"n": 1}, {"n": 9}]}, "rows.*.n", "deny"),
        ({"rows": [{"m": 1}, {"n": 9}]}, "rows.*.n", "deny"),
        ({"rows": [{"m": 9}]}, "rows.*.n", "allow"),
        ({"rows": [{"n": 9}]}, "rows.n", "deny"),
        ({"rows": {"n": 9}}, "rows.*.n", "deny"),
        ({"rows": {"n": 9}}, "rows.0.n", "deny"),
        ({"rows": [[{"n": 9}]]}, "rows.n", "deny"),
        ({"rows": [{"n": [1, 9]}]}, "rows.*.n", "deny"),
        ({"rows": [{"n": 1}]}, "rows.*.n", "allow"),
    ],
)
def test_one_item_over_the_bound_is_denied_however_the_list_is_built(arguments: Any, path: str, outcome: str) -> None:
    """Items that lack the path are skipped, and are no reason to pass the others."""
    assert decide(arguments, deny(path=path, op="gt", value=5), ALLOW) == outcome


def test_exists_is_read_as_the_outcome_needs_it() -> None:
    """To forbid what is there, one item is enough; to allow what is absent, none may have it."""
    mixed = {"rows": [{"bcc": "eve"}, {}]}
    there, absent = (
        {"path": "rows.*.bcc", "op": "exists", "value": True},
        {"path": "rows.*.bcc", "op": "exists", "value": False},
    )
    assert decide(mixed, deny(**there), ALLOW) == "deny" and decide(mixed, deny(**absent), ALLOW) == "deny"
    assert decide(mixed, allow(**there)) == "deny" and decide(mixed, allow(**absent)) == "deny"
    assert (
        decide({"rows": [{}]}, allow(**absent)) == "allow" and decide({"rows": [{"bcc": 1}]}, allow(**there)) == "allow"
    )


def test_case_counts_unless_a_test_says_otherwise() -> None:
    """For all operators on text."""
    for op, value in (("eq", "EVE"), ("in", ["EVE"]), ("contains", "EV"), ("matches", "E.E"), ("starts_with", "EV")):
        test = {"path": "to", "op": op, "value": value}
        assert decide({"to": "eve"}, deny(**test), ALLOW) == "allow"
        assert decide({"to": "eve"}, deny(**test, ignore_case=True), ALLOW) == "deny"
        assert decide({"to": "eve"}, allow(**test)) == "deny"
        assert decide({"to": "eve"}, allow(**test, ignore_case=True)) == "allow"
    assert decide({"to": "STRASSE"}, deny(path="to", op="eq", value="straße", ignore_case=True), ALLOW) == "deny"
    assert decide({"to": "eve"}, allow(path="to", op="ne", value="EVE", ignore_case=True)) == "deny"


def test_a_dot_takes_a_line_break_where_a_rule_forbids_and_not_where_it_allows() -> None:
    """A pattern is of the whole text."""
    text = "x\r\n; DROP TABLE users"
    assert decide({"q": text}, deny(path="q", op="matches", value=".*DROP TABLE.*"), ALLOW) == "deny"
    assert decide({"q": "DROP\u2028 TABLE"}, deny(path="q", op="matches", value=".*DROP TABLE.*"), ALLOW) == "deny"
    assert decide({"q": "a@b\n"}, allow(path="q", op="matches", value=".*@b")) == "deny"
    assert decide({"q": "eve\na@b"}, allow(path="q", op="matches", value=".*@b")) == "deny"


@pytest.mark.parametrize(
    ("outcome", "condition", "origins", "holds"),
    [
        ("deny", {"within": ["tool"]}, ["tool", "request"], True),
        ("deny", {"outside": ["request"]}, ["tool", "request"], True),
        ("deny", {"within": ["tool"]}, ["request"], False),
        ("deny", {"outside": ["request"]}, [], False),
        ("allow", {"within": ["request"]}, ["tool", "request"], False),
        ("allow", {"within": ["request"]}, ["request", "request"], True),
        ("allow", {"outside": ["tool"]}, ["tool", "request"], False),
        ("allow", {"outside": ["tool"]}, ["request"], True),
        ("allow", {"outside": ["tool"]}, [], False),
    ],
)
def test_a_further_value_of_another_origin_gets_nobody_past_a_rule(
    outcome: str, condition: dict[str, Any], origins: list[Any], holds: bool
) -> None:
    """Origins are read as arguments are: one is enough to forbid, all must be as said to allow."""
    traced = tuple(
        ValueOrigin(path=f"to.{i}", value="x", part="authority", origin=origin) for i, origin in enumerate(origins)
    )
    rule = {"id": "r", "outcome": outcome, "when": {"origins": [condition]}}
    decided = decide({}, rule, *([ALLOW] if outcome == "deny" else []), origins=traced)
    assert (decided == outcome) is holds


def test_true_is_not_one_within_a_list_either() -> None:
    """Nor within an object."""
    assert decide({"x": [True]}, allow(path="x", op="eq", value=[1])) == "deny"
    assert decide({"x": {"a": 1}}, allow(path="x", op="eq", value={"a": True})) == "deny"


@pytest.mark.parametrize("value", ["\uff45\uff56\uff45", "cafe\u0301", "e\u200bve", ["ok", "ﬁ"]])
def test_a_value_that_an_allowed_text_never_has_is_refused_at_load(value: Any) -> None:
    """With its plain form."""
    op = "in" if isinstance(value, list) else "eq"
    with pytest.raises(ValueError, match="an allowed text is written plainly"):
        decide({}, allow(path="to", op=op, value=value))
    decide({"to": "x"}, deny(path="to", op=op, value=value))


@given(text=st.text(max_size=20))
def test_plain_text_stays_as_it_is(text: str) -> None:
    """So that being plain can be asked for."""
    assert plain(plain(text)) == plain(text) and is_plain(plain(text))
    assert caseless(caseless(text)) == caseless(text) or not text.isascii()
    assert joined(joined(text)) == joined(text)
    assert alike(plain(text)) == alike(plain(alike(plain(text))))


LABELS = {
    "Untrusted": "untrusted",
    "untrusted ": "untrusted",
    "\u200buntrusted": "untrusted",
    "\uff36\uff29\uff30": "vip",
    "a  b": "a b",
}


@pytest.mark.parametrize(("given_label", "label"), LABELS.items())
def test_a_label_is_tidied_where_it_enters(given_label: str, label: str) -> None:
    """So that case, white space and hidden characters make no other of it."""
    assert check_label(given_label) == label
    rule = {"id": "no", "outcome": "deny", "when": {"labels": [label]}}
    assert decide({}, rule, ALLOW, labels=frozenset({given_label})) == "deny"


@pytest.mark.parametrize(
    "label",
    ["", " ", '"untrusted"', "untrused", "un-trusted", "untrustedd", "restircted", "personal data", "x" * 65, "a\nb;"],
)
def test_what_is_no_label_or_nearly_one_of_the_stacks_is_refused(label: str) -> None:
    """A misspelt `untrusted` would make the request its principal's word."""
    with pytest.raises(InvalidInput, match="label"):
        check_label(label)


def test_a_label_that_an_app_does_not_declare_is_refused_where_it_declares_any() -> None:
    """Those of the stack's own are always there."""
    assert check_label("VIP", declared={"vip"}) == "vip" and check_label("untrusted", declared=()) == "untrusted"
    with pytest.raises(InvalidInput, match="none of the app's"):
        check_label("vipp", declared={"vip"})


@pytest.mark.parametrize("label", ["Untrusted", "untrusted ", "untrused", '"untrusted"', "PII"])
def test_a_rule_about_a_label_no_run_has_is_refused_with_its_line(label: str) -> None:
    """And the label it may have meant."""
    with pytest.raises(InvalidConfig, match=r"policy:5: .*label"):
        load_bundle(f"version: v1\nrules:\n- id: a\n  outcome: deny\n  when: {{labels: ['{label}']}}\n")


@pytest.mark.parametrize("label", SYSTEM_LABELS)
def test_the_stacks_own_labels_can_be_asked_for(label: str) -> None:
    """As they are written."""
    load_bundle(f"version: v1\nrules: [{{id: a, outcome: deny, when: {{labels: [{label}]}}}}]\n")


def test_ingress_passes_labels_on_tidy_and_refuses_what_nearly_is_one() -> None:
    """A request that an outsider wrote is `untrusted` however its sender spells it."""
    from pathlib import Path

    from airside.actors.ingress import Ingress
    from airside.actors.rpc.layer import LayerConfig
    from airside.actors.settings import Settings
    from airside.stack.directory import load_directory

    directory = load_directory("tenants: {acme: {principals: {ann: {}}}}")
    config = LayerConfig(Settings(), Path("unused"), seal_key=b"k" * 32)
    ingress = Ingress(config, directory, b"", frozenset({"vip"}))
    data = b'{"text": "x", "labels": ["Untrusted", "untrusted ", "VIP"]}'
    assert ingress._request(data, identity(), b"n").labels == ("untrusted", "untrusted", "vip")
    for wrong in ("untrused", "other", '\\"untrusted\\"'):
        with pytest.raises(InvalidInput, match="label"):
            ingress._request(f'{{"text": "x", "labels": ["{wrong}"]}}'.encode(), identity(), b"n")


@pytest.mark.parametrize(
    "text", ["evil", "EVIL", "ev\u0130l", "ev\u0131l", "\u0415VIL", "\uff25vil", "evi\u0307l", "e\u200bvil"]
)
@pytest.mark.parametrize("op", ["eq", "contains", "starts_with"])
def test_no_letter_of_another_case_gets_past_a_rule_that_ignores_it(text: str, op: str) -> None:
    assert decide({"to": text}, deny(path="to", op=op, value="evil", ignore_case=True), ALLOW) == "deny"


@given(st.lists(st.sampled_from(["plain", " two", "a  b", "x\x7f", "\u0430", "", "a b", "tab\t"]), max_size=20))
def test_a_text_is_tidy_or_not_whichever_was_looked_at_before(texts: list[str]) -> None:
    """The latest answer is remembered, for each rule asks about the same text."""
    tidy = {"plain", "", "a b"}
    assert [is_tidy(text) for text in texts] == [text in tidy for text in texts]
