"""What can match nothing is refused before anything starts: with its line, and with what it may have meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airside
from airside import App, Finish, Tool
from airside.stack.errors import InvalidConfig
from airside.stack.policy.bundle import ArgumentTest, load_bundle
from airside.stack.policy.comparisons import compile_test
from airside.stack.policy.possible import problem_with
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Identity
from airside.tools.resolving import resolver

NOBODY = Identity(principal="nobody", tenant="nobody")  # type: ignore[arg-type]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["country", "to"],
    "$defs": {"money": {"type": "object", "properties": {"cents": {"type": "integer", "minimum": 1, "maximum": 100}}}},
    "properties": {
        "country": {"enum": ["RU", "NO", "DE"]},
        "day": {"type": "string", "minLength": 10, "maxLength": 10},
        "to": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}},
        "order": {"$ref": "#/$defs/money"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/money"}},
        "user-id": {"type": "string", "pattern": "^u_[0-9]+$"},
        "größe": {"type": ["number", "null"]},
        "a.b": {"type": "boolean"},
        "free": {"type": "object", "additionalProperties": True},
        "many": {"type": "array"},
        "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
        "limit": {"type": "integer", "default": 5},
    },
}
PAY = Tool.from_schema("pay", SCHEMA, lambda **arguments: 1, effect="write", scopes=["pay"])
LOOK = Tool.from_schema(
    "look", {"type": "object", "properties": {"q": {"type": "string"}}}, lambda q="": q, effect="read"
)
DIRECTORY = """\
tenants:
  acme:
    principals:
      ann: {roles: [clerk], scopes: [pay], attributes: {orders: [o1]}}
      bob: {roles: [boss]}
  open:
    open: true
    open_roles: [guest]
    open_scopes: [look]
"""


def check(when: str, outcome: str = "deny", approval: str = "", directory: str = DIRECTORY, **fields: Any) -> None:
    """Check an app whose second rule has these conditions, on line 5."""
    rule = f"- id: big\n  outcome: {outcome}\n  when: {{{when}}}\n{approval}"
    policy = f"version: v1\nrules:\n{rule}- {{id: rest, outcome: allow}}\n"
    App(agents={"a": lambda view: Finish()}, tools=[PAY, LOOK], policy=policy, directory=directory, **fields).checked()


def argument(path: str, op: str, value: str) -> str:
    """Return a condition on an argument."""
    return f"arguments: [{{path: '{path}', op: {op}, value: {value}}}]"


WRONG = [
    ("tool: [pey]", "no tool is called 'pey'; there are look, pay"),
    ("tool: ['sen*']", "no tool is called 'sen*'"),
    ("tool: [pay], effect: [read]", "none of ['pay'] has this effect, risk and lane"),
    ("tool: [pay], risk: [low]", "none of ['pay'] has this effect, risk and lane"),
    ("tenant: [acmee]", "no tenant is called 'acmee' (do you mean acme?)"),
    ("tenant: ['x*']", "no tenant is called 'x*'"),
    ("tenant: [acme], principal: [anne]", "no principal is called 'anne' (do you mean ann?)"),
    ("roles: [clark]", "nobody holds the role 'clark' (do you mean clerk?)"),
    ("tenant: [acme], roles: [guest]", "nobody holds the role 'guest'"),
    ("scopes: [pays]", "nobody has the scope 'pays'"),
    ("scopes: [pay, look]", "nobody has all of ['look', 'pay']"),
    ("labels: [untrused]", "is nearly 'untrusted'"),
    (
        "arguments: [{path: user-id, op: in, identity: attributes.order}]",
        "nobody has the attribute 'order' (do you mean orders?)",
    ),
    ("remaining: [{unit: max_steps, op: lt, value: 0}]", "nothing is below 0"),
]
WRONG_ARGUMENTS = [
    ("cent", "eq", "5", "no tool has an argument 'cent'"),
    ("order.cent", "eq", "5", "has an argument 'order.cent'"),
    ("lines.*.cent", "gt", "5", "has an argument 'lines.*.cent'"),
    ("country.name", "eq", "x", "has an argument 'country.name'"),
    ("day.*.x", "eq", "x", "has an argument 'day.*.x'"),
    ("country", "in", "[RU, false]", "can have a 'country' that is eq False"),
    ("country", "in", "[RU, RO]", "can have a 'country' that is eq 'RO'"),
    ("country", "eq", "ru", "can have a 'country' that is eq 'ru'"),
    ("country", "ne", "XX", "can have a 'country' that is eq 'XX'"),
    ("country", "matches", "'[a-z]+'", "can have a 'country' that is matches"),
    ("country", "starts_with", "X", "can have a 'country' that is starts_with"),
    ("day", "eq", "5", "can have a 'day' that is eq 5"),
    ("day", "eq", "2026-12-2", "can have a 'day' that is eq '2026-12-2'"),
    ("day", "gt", "5", "can have a 'day' that is gt 5"),
    ("day", "contains", "2026-12-25x", "that is contains"),
    ("names.*", "eq", "longer", "can have a 'names.*' that is eq 'longer'"),
    ("names", "contains", "5", "that is contains 5"),
    ("to", "eq", "5", "can have a 'to' that is eq 5"),
    ("to.*", "in", "[eve, null]", "that is eq None"),
    ("order.cents", "eq", "500", "can have a 'order.cents' that is eq 500"),
    ("order.cents", "eq", "'5'", "can have a 'order.cents' that is eq '5'"),
    ("order.cents", "eq", "1.5", "that is eq 1.5"),
    ("order.cents", "gt", "100", "that is gt 100"),
    ("lines.*.cents", "ge", "101", "that is ge 101"),
    ("order.cents", "lt", "1", "that is lt 1"),
    ("order.cents", "le", "0", "that is le 0"),
    ("user-id", "eq", "u_x", "that is eq 'u_x'"),
    ("größe", "eq", "x", "that is eq 'x'"),
    (r"a\\.b", "eq", "1", "that is eq 1"),
    ("a.b", "eq", "true", "has an argument 'a.b'"),
    ("extra.x", "eq", "x", "that is eq 'x'"),
    ("country", "exists", "false", "can be called without 'country'"),
    ("limit", "exists", "false", "can be called without 'limit'"),
]


@pytest.mark.parametrize(("when", "said"), WRONG)
def test_a_rule_about_a_name_that_nothing_has_is_refused_with_its_line(when: str, said: str) -> None:
    """And with the name that was meant, if there is one like it."""
    with pytest.raises(InvalidConfig) as caught:
        check(when)
    assert caught.value.message.startswith("policy:5: ") and said in caught.value.message


@pytest.mark.parametrize(("path", "op", "value", "said"), WRONG_ARGUMENTS)
def test_a_test_that_no_argument_can_meet_is_refused_with_its_line(path: str, op: str, value: str, said: str) -> None:
    """By the type, the choices, the bounds and the lengths in the tool's schema."""
    path = path.replace("\\\\", "\\")
    with pytest.raises(InvalidConfig) as caught:
        check(argument(path, op, value))
    message = caught.value.message
    assert message.startswith("policy:5: rule big: no tool ") and said.replace("\\\\", "\\\\") in message.replace(
        "'a\\\\.b'", "x"
    )


@pytest.mark.parametrize(
    "when",
    [
        "tool: ['p*']",
        "principal: [zoe]",
        "tenant: [acme], principal: ['a*']",
        "roles: [clerk, guest]",
        "scopes: [look]",
        "labels: [vip, untrusted, restricted]",
        argument("country", "in", "[RU, NO]"),
        argument("day", "eq", "2026-12-25"),
        argument("to", "eq", "eve"),
        argument("to.*", "eq", "eve"),
        argument("to", "contains", "eve"),
        argument("names", "eq", "eve"),
        argument("names", "eq", "[eve]"),
        argument("order.cents", "eq", "100"),
        argument("lines.cents", "ge", "100"),
        argument("lines.0.cents", "gt", "99"),
        argument("user-id", "eq", "u_1"),
        argument("größe", "eq", "null"),
        argument("größe", "lt", "-1.5"),
        argument(r"a\.b", "eq", "true"),
        argument("free.any.thing", "eq", "5"),
        argument("many.*.x", "eq", "5"),
        argument("many", "contains", "5"),
        argument("extra.x", "gt", "5"),
        argument("day", "exists", "false"),
        "arguments: [{path: country, op: eq, value: ru, ignore_case: true}]",
        "arguments: [{path: user-id, op: in, identity: attributes.orders}]",
        "arguments: [{path: to, op: ne, identity: principal}]",
    ],
)
def test_what_may_be_met_is_taken(when: str) -> None:
    """As far as schema and directory leave it open."""
    check(when)


def test_one_of_several_tools_that_has_the_argument_is_enough() -> None:
    """A rule without a tool is about whichever has it."""
    check(argument("q", "eq", "x"))
    with pytest.raises(InvalidConfig, match=r"none of \['pay'\] has an argument 'q'"):
        check("tool: [pay], " + argument("q", "eq", "x"))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("{roles: [boss, chief]}", "policy:6: rule big: nobody who could approve holds the role 'chief'"),
        ("{roles: [boss], quorum: 2}", "policy:6: rule big: 2 people must approve, and in no tenant more than 1"),
        ("{roles: [boss, clerk], quorum: 3}", "in no tenant more than 1"),
        ("{roles: [clerk]}", "more than 0 hold one of the roles ['clerk'] beside whoever asks"),
    ],
)
def test_an_approval_that_nobody_can_give_is_refused(terms: str, said: str) -> None:
    """A call that asked for it could only expire."""
    with pytest.raises(InvalidConfig) as caught:
        check("tool: [pay], tenant: [acme]", "require_approval", f"  approval: {terms}\n")
    assert said in caught.value.message
    check("", "require_approval", "  approval: {roles: [guest], quorum: 9}\n")
    check("effect: [irreversible]", "require_approval", "  approval: {roles: [chief]}\n")


def warned(directory: str, policy: Any = airside.DEFAULT_POLICY, tools: Any = (PAY,)) -> tuple[str, ...]:
    """Return what an app is warned of."""
    return App(agents={"a": lambda view: Finish()}, tools=tools, policy=policy, directory=directory).checked().warnings


def test_the_bundle_that_ships_warns_of_an_app_without_approvers() -> None:
    """It is written for apps it does not know: the tenants are named whose calls could only wait and expire."""
    (said,) = warned(DIRECTORY)
    assert load_bundle(airside.DEFAULT_POLICY).shared
    assert "rule steered-writes can be approved by nobody in tenant acme" in said and "'approver'" in said
    assert warned(DIRECTORY.replace("boss", "approver")) == ()
    assert warned(DIRECTORY, tools=[PAY, LOOK]) == (said,), "nobody is asked about a read of low risk"


@pytest.mark.parametrize(
    ("acme", "rule", "is_warned"),
    [
        ("principals: {ann: {roles: [lead]}}", "roles: [lead]", True),
        ("principals: {ann: {roles: [lead]}, bob: {}}", "roles: [lead]", False),
        ("principals: {ann: {roles: [lead]}, bob: {roles: [lead]}}", "roles: [lead], quorum: 2", True),
        ("principals: {ann: {roles: [lead]}, bob: {roles: [lead]}, kim: {}}", "roles: [lead], quorum: 2", False),
        ("principals: {ann: {roles: [lead]}, bob: {roles: [boss]}, kim: {}}", "roles: [lead, boss], quorum: 2", False),
        ("principals: {ann: {roles: [lead]}}, open: true", "roles: [lead]", False),
        ("principals: {ann: {}}, open: true, open_roles: [lead]", "roles: [lead], quorum: 9", False),
        ("principals: {ann: {}}, open: true, open_roles: [clerk]", "roles: [lead]", True),
        ("principals: {}", "roles: [lead]", False),
    ],
)
def test_a_tenant_in_which_nobody_could_approve_is_warned_of(acme: str, rule: str, is_warned: bool) -> None:
    """Nobody approves what they asked for themselves; where nobody can ask, nobody need answer."""
    asking = f"{{id: ask, outcome: require_approval, approval: {{{rule}}}}}"
    policy = f"version: v1\nrules: [{asking}, {{id: rest, outcome: allow}}]"
    beta = "principals: {a: {roles: [lead]}, b: {roles: [lead]}, c: {roles: [boss]}}"
    found = warned(
        f"tenants: {{acme: {{{acme}}}, beta: {{{beta}, open: true, open_roles: [lead, boss]}}}}", policy, [LOOK]
    )
    assert [text for text in found if "rule ask can be approved by nobody in tenant acme:" in text] == list(found)
    assert bool(found) is is_warned


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        (
            "budgets: [{unit: 'tool:pey', limit: 1}]\n" + DIRECTORY,
            "directory:1: budgets.0: no tool is called 'pey'; there are look, pay",
        ),
        (
            DIRECTORY + "    budgets:\n    - {unit: tokens, limit: 1}\n    - {unit: 'tool:look_up', limit: 1}\n",
            "directory:12: tenants.open.budgets.1: no tool is called 'look_up'",
        ),
        (
            DIRECTORY.replace("scopes: [pay]", "scopes: [paid]"),
            "nobody has all the scopes ['pay'], so nobody could call",
        ),
    ],
)
def test_a_directory_that_names_what_no_tool_has_is_refused(directory: str, said: str) -> None:
    """A budget of a misspelt tool bounds nothing."""
    with pytest.raises(InvalidConfig) as caught:
        check("", directory=directory)
    assert said in caught.value.message


def test_declared_labels_are_the_ones_rules_may_ask_for() -> None:
    """Beside those of the stack."""
    check("labels: [vip, untrusted]", labels=["vip"])
    with pytest.raises(InvalidConfig, match=r"policy:5: rule big: no run can have the label 'vipp' \(do you mean vip"):
        check("labels: [vipp]", labels=["vip"])
    for wrong in (["VIP"], "vip", [5], ["untrused;"]):
        with pytest.raises(InvalidConfig, match="labels: "):
            check("", labels=wrong)


def test_all_problems_are_said_at_once() -> None:
    """Each with its rule."""
    with pytest.raises(InvalidConfig) as caught:
        check("tool: [pey], roles: [clark], tenant: [acmee]")
    assert len(caught.value.message.splitlines()) == 3


types = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"enum": ["a", 1, True]}, {"const": None}, {}]
)
schemas = st.recursive(
    types,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"oneOf": each}),
        inner.map(lambda each: {"allOf": [each]}),
        inner.map(lambda each: {"type": "array", "items": each}),
    ),
    max_leaves=4,
)
scalars = st.sampled_from(["a", "b", 1, 2, True, False, None, 1.5])


@given(schema=schemas, value=scalars, operand=scalars, shape=st.sampled_from(["itself", "listed"]))
def test_a_test_that_some_argument_meets_is_never_refused(schema: Any, value: Any, operand: Any, shape: str) -> None:
    """What is refused is met by no argument the schema takes."""
    from airside.stack.policy.comparisons import compile_test
    from airside.stack.schema.toolspec import ArgumentValidator
    from tests.helpers import identity

    spec = ToolSpec.build(
        name="t", effect="write", parameters={"type": "object", "properties": {"x": schema}, "required": ["x"]}
    )
    arguments = {"x": [value] if shape == "listed" else value}
    try:
        ArgumentValidator(spec).complete(arguments)
    except airside.AirsideError:
        return
    for op in ("eq", "ne", "contains", "starts_with"):
        if op == "starts_with" and not isinstance(operand, str):
            continue
        for forbids in (True, False):
            test = ArgumentTest(path="x", op=op, value=operand)  # type: ignore[arg-type]
            positive = test.model_copy(update={"op": "eq" if op == "ne" else op})
            try:
                met = compile_test(positive, forbids=forbids)(arguments, identity())
            except TypeError:
                met = False
            assert not met or problem_with(test, spec, forbids=forbids) == ""


# Resources.

REFUND = Tool.from_schema(
    "refund",
    {"type": "object", "properties": {"order_id": {"type": "string"}, "lines": {"type": "array", "items": {}}}},
    lambda **arguments: 1,
    effect="write",
    resource=[("order", "order_id"), ("line", "lines.*")],
)
RESOURCE_RULE = """\
version: v1
rules:
- id: own
  outcome: allow
  when:
    effect: [EFFECT]
    resource:
    - kind: order
      owner: principal
    - kind: KIND
      path: PATH
      attributes:
        total: {op: le, value: 5}
        NAME:
          op: in
          of: OPERAND
"""


def nobody(id: Any, context: Any) -> None:
    """Know of nothing."""


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("EFFECT", "read", "policy:8: rule own: no tool it can be about declares a resource of the kind 'order'"),
        ("KIND", "lime", "policy:10: rule own: no tool it can be about declares a resource of the kind 'lime' (do you"),
        ("PATH", "order_id", "policy:11: rule own: no tool it can be about declares a resource of the kind 'line' at"),
        ("NAME", "shop", "policy:14: rule own: the resolver of 'line' gives no attribute 'shop' (do you mean shops?)"),
        ("OPERAND", "attributes.order", "policy:16: rule own: nobody has the attribute 'order'"),
        ("OPERAND", "oder_id", "policy:16: rule own: no tool it can be about has an argument 'oder_id' to compare"),
    ],
)
def test_what_a_rule_says_of_resources_and_nothing_can_match_is_refused_with_its_line(
    name: str, to: str, said: str
) -> None:
    """A kind, a path, an attribute, and what that is compared with."""
    rule = RESOURCE_RULE.replace(name, to)
    usual = {"EFFECT": "write", "KIND": "line", "PATH": "lines.*", "NAME": "shops", "OPERAND": "attributes.orders"}
    for each, value in usual.items():
        rule = rule.replace(each, value)
    app = App(
        agents={"a": lambda view: Finish()},
        tools=[REFUND, LOOK],
        policy=rule,
        directory=DIRECTORY.replace(", scopes: [pay]", ""),
        resolvers={"order": nobody, "line": resolver(attributes=("total", "shops"))(nobody)},
    )
    with pytest.raises(InvalidConfig) as caught:
        app.checked()
    assert said in caught.value.message


NEVER_IDS: list[Any] = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": "object"},
    {"type": "array", "items": {"type": "string"}},
    {"enum": [True, None, 1.5]},
    {"const": False},
    {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    {"allOf": [{"type": ["string", "null"]}, {"type": ["boolean", "null"]}]},
    {"$ref": "#/$defs/flag"},
    False,
]
MAYBE_IDS: list[Any] = [
    {},
    True,
    {"type": "string"},
    {"type": ["integer", "null"]},
    {"type": "number"},
    {"enum": ["a", None]},
    {"const": 7},
    {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
]


def named_at(schema: Any, path: str) -> ToolSpec:
    """Return a tool that names orders at a path to what has a schema."""
    properties = {"id": schema, "ids": {"type": "array", "items": schema}, "order": {"properties": {"id": schema}}}
    parameters = {"type": "object", "properties": properties, "$defs": {"flag": {"type": "boolean"}}}
    return ToolSpec.build(name="refund", effect="write", parameters=parameters, resources=(("order", path),))


@pytest.mark.parametrize("path", ["id", "ids.*", "order.id"])
def test_what_can_never_be_an_id_is_refused_when_it_is_declared(path: str) -> None:
    """Every call would be of an unknown resource; what may be an id is taken."""
    for schema in NEVER_IDS:
        with pytest.raises(InvalidConfig, match=r"tool refund: resource order: '.+' is never an id"):
            named_at(schema, path)
    for schema in MAYBE_IDS:
        assert named_at(schema, path).resources


def test_a_list_of_ids_may_stand_where_one_may_and_the_other_way_round() -> None:
    """A star stands for what is no list itself."""
    either = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}
    assert named_at(either, "id.*").resources and named_at({"type": "string"}, "id").resources
    assert named_at({"type": "array"}, "id.*").resources and named_at({"type": "object"}, "id.number").resources


ROWS: dict[str, Any] = {
    "type": "object",
    "$defs": {"row": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    "properties": {
        "listed": {"type": "array", "items": {"$ref": "#/$defs/row"}},
        "one": {"$ref": "#/$defs/row"},
        "named": {"type": "object", "additionalProperties": {"$ref": "#/$defs/row"}},
        "known": {"type": "object", "properties": {"a": {"$ref": "#/$defs/row"}}},
        "spelt": {"type": "object", "patternProperties": {"^r[0-9]$": {"$ref": "#/$defs/row"}}},
        "text": {"type": "string"},
    },
}
SEND = Tool.from_schema("send", ROWS, lambda **arguments: 1, effect="write")


@pytest.mark.parametrize("name", ["listed", "one", "named", "known", "spelt"])
def test_a_denial_of_rows_may_be_met_in_every_form_they_can_have(name: str) -> None:
    """A list of them, one alone, and rows under names, whoever names them; not in what never holds one."""
    test = ArgumentTest(path=f"{name}.*.n", op="gt", value=5)
    assert problem_with(test, SEND.spec, forbids=True) == ""
    assert "has an argument" in problem_with(ArgumentTest(path="text.*.n", op="gt", value=5), SEND.spec, forbids=True)
    if name != "spelt":
        misspelt = problem_with(ArgumentTest(path=f"{name}.*.m", op="gt", value=5), SEND.spec, forbids=True)
        assert misspelt


def wrapped(value: Any, how: str) -> Any:
    """Return rows of which the value is one."""
    return {"list": [{"n": 0}, value], "one": value, "named": {"x": {"n": 0}, "y": value}, "deep": [[value]]}[how]


HOW = st.sampled_from(["list", "one", "named", "deep"])


@given(st.lists(HOW, min_size=1, max_size=3), st.integers(1, 9))
def test_no_form_of_rows_gets_round_a_denial(how: list[str], wanted: int) -> None:
    """However rows are given at each `*`, one that a rule forbids is found; to allow, they must be lists or one."""
    arguments: Any = {"n": wanted}
    for each in reversed(how):
        arguments = {"rows": wrapped(arguments, each)}
    path = "rows.*." * len(how) + "n"
    test = ArgumentTest(path=path, op="eq", value=wanted)
    assert compile_test(test, forbids=True)(arguments, NOBODY, arguments)
    allowed = compile_test(test, forbids=False)(arguments, NOBODY, arguments)
    assert allowed is (set(how) == {"one"})


@pytest.mark.parametrize(
    ("op", "value", "met_by"),
    [
        ("eq", None, {"null"}),
        ("in", ["a", None], {"null", "a"}),
        ("ne", None, {"a", "b"}),
        ("not_in", ["a", None], {"b"}),
        ("eq", "a", {"a"}),
        ("in", ["a"], {"a"}),
    ],
)
@pytest.mark.parametrize("forbids", [False, True])
def test_null_is_met_by_a_null_that_is_there_and_by_nothing_else(
    op: Any, value: Any, met_by: set[str], forbids: bool
) -> None:
    """It is a value that a rule can name, to allow as to deny; what is not there is none."""
    check = compile_test(ArgumentTest(path="x", op=op, value=value), forbids=forbids)
    given: dict[str, Any] = {"null": {"x": None}, "a": {"x": "a"}, "b": {"x": "b"}, "absent": {}}
    assert {name for name, arguments in given.items() if check(arguments, NOBODY, arguments)} == met_by


@pytest.mark.parametrize(("op", "value", "forbidden"), [("ne", "a", {"null", "b"}), ("not_in", ["a"], {"null", "b"})])
def test_a_null_that_no_rule_names_is_other_than_what_it_names_to_a_denial_alone(
    op: Any, value: Any, forbidden: set[str]
) -> None:
    """To allow what is not Eve, null says too little."""
    given: dict[str, Any] = {"null": {"x": None}, "a": {"x": "a"}, "b": {"x": "b"}, "absent": {}}
    for forbids, met_by in ((True, forbidden), (False, {"b"})):
        check = compile_test(ArgumentTest(path="x", op=op, value=value), forbids=forbids)
        assert {name for name, arguments in given.items() if check(arguments, NOBODY, arguments)} == met_by
