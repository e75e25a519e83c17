"""Rules about resources: what each condition means, for which outcome, and that nothing unknown is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.approvals.book import (
    ApprovalBook,
    ApprovalRequested,
    ApprovalVoted,
    decode_approval_event,
    receipt_for,
    seal_approval,
)
from airside.stack.canonical import canonical
from airside.stack.contracts.gate import GateReply
from airside.stack.cycle.in_memory import InMemoryPolicy, InMemoryResolvers
from airside.stack.errors import InvalidConfig
from airside.stack.ids import TenantId
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.lookups import Lookups
from airside.stack.resources import MAX_RESOURCES, SHARED, Key, ResolverTerms, Resource
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Identity
from tests.helpers import KEY, RUN, gate_request, identity
from tests.simulation.clock import ManualLoop

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
ANY_ID = {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}
OPEN = {
    "type": "object",
    "properties": {
        "order_id": {"default": None},
        "ids": {},
        "lines": {},
        "order": {},
        "customer_id": {"type": "string"},
        "amount": {"type": "integer"},
    },
}
ATTRIBUTES = {
    "status": "open",
    "total": 5,
    "locked": False,
    "tags": ("big", "old"),
    "seller": "ann",
    "buyers": ("mine", "theirs"),
    "note": None,
}
DECLARED = (("order", "order_id"), ("order", "ids.*"), ("order", "lines.*.id"), ("order", "order.id"))


def spec(name: str = "change", effect: str = "write", *more: tuple[str, str]) -> ToolSpec:
    """Return a tool that names orders in every way there is."""
    return ToolSpec.build(name=name, effect=effect, parameters=OPEN, resources=DECLARED + more)


class World:
    """A gate over some rules, and the resources that are known."""

    def __init__(self, *rules: str, tools: tuple[ToolSpec, ...] = (), cache_ms: int = 0) -> None:
        self.loop = ManualLoop()
        self.resolvers = InMemoryResolvers(KEY, self.loop.now_us)
        terms = {kind: ResolverTerms(timeout_ms=100, cache_ms=cache_ms) for kind in ("order", "customer")}
        self.lookups = Lookups(self.resolvers, terms, seal_key=KEY, issuer="", now_us=self.loop.now_us)
        numbers = iter(range(10_000))
        self.gate = Gate(
            bundle=load_bundle("version: v1\nrules:\n" + "".join(f"- {rule}\n" for rule in rules)),
            tools=tools or (spec(), spec("look", "read"), spec("both", "write", ("customer", "customer_id"))),
            seal_key=KEY,
            now_us=self.loop.now_us,
            random=lambda n: next(numbers).to_bytes(n, "big"),
            on_change=self.lookups.changed,
        )
        self.policy = InMemoryPolicy(self.gate, self.lookups)
        for order_id, owner in (("mine", "ann"), ("mine2", "ann"), ("theirs", "bob"), ("nobodys", None), (7, "ann")):
            self.know(("order", order_id), owner=owner, attributes=ATTRIBUTES)
        self.know(("order", "7"), owner="bob")
        self.know(("order", "shared"), tenant=SHARED)
        self.know(("order", "foreign"), tenant=GLOBEX, owner="ann")
        self.know(("customer", "c1"), owner="ann")

    def know(self, key: Key, **fields: Any) -> None:
        """Let acme's resolvers say something of a resource."""
        self.resolvers.known[(ACME, key)] = Resource(**({"tenant": ACME} | fields))

    def ask(
        self, arguments: dict[str, Any], tool: str = "change", who: Identity | None = None, receipt: str = ""
    ) -> GateReply:
        """Return the decision about ann's call."""
        request = gate_request(tool, canonical(arguments), who=who, receipt=receipt)
        return self.loop.run_until_complete(self.policy.decide(request))

    def says(self, arguments: dict[str, Any], **fields: Any) -> str:
        """Return the outcome, or the reason of a deny that no rule made."""
        reply = self.ask(arguments, **fields)
        assert bool(reply.grant) == (reply.decision.outcome == "allow")
        made = reply.decision.rule not in ("default-deny", "resource", "error")
        return reply.decision.outcome if made else str(reply.decision.reason_code)


OWN = "{id: own, outcome: allow, when: {resource: {kind: order, owner: principal}}}"
ALL = "{id: all, outcome: allow}"


def rule(outcome: str, resource: str, more: str = "") -> str:
    """Return a rule on one resource."""
    approval = ", approval: {roles: [boss]}" if outcome == "require_approval" else ""
    return f"{{id: r, outcome: {outcome}{approval}, when: {{resource: {resource}{more}}}}}"


# What is allowed.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"order_id": "mine"}, "allow"),
        ({"order_id": 7}, "allow"),
        ({"ids": ["mine", "mine2", "mine", 7]}, "allow"),
        ({"lines": [{"id": "mine"}, {"id": 7}], "order": {"id": "mine2"}}, "allow"),
        ({"order_id": "theirs"}, "policy_denied"),
        ({"order_id": "nobodys"}, "policy_denied"),
        ({"order_id": "shared"}, "policy_denied"),
        ({"order_id": "7"}, "policy_denied"),
        ({"ids": ["mine", "theirs"]}, "policy_denied"),
        ({"order_id": "mine", "ids": ["theirs"]}, "policy_denied"),
        ({"lines": [{"id": "mine"}, {}]}, "policy_denied"),
        ({"lines": [{"id": "mine"}, {"id": None}]}, "policy_denied"),
        ({}, "policy_denied"),
        ({"order_id": None}, "policy_denied"),
        ({"ids": []}, "policy_denied"),
        ({"order_id": "nowhere"}, "resource_unknown"),
        ({"order_id": "foreign"}, "resource_unknown"),
        ({"order_id": "m\u0456ne"}, "resource_unknown"),
        ({"order_id": "mine "}, "resource_unknown"),
        ({"order_id": "Mine"}, "resource_unknown"),
        ({"order_id": ""}, "resource_unknown"),
        ({"order_id": True}, "resource_unknown"),
        ({"order_id": 7.0}, "resource_unknown"),
        ({"order_id": ["mine"]}, "resource_unknown"),
        ({"order_id": {"id": "mine"}}, "resource_unknown"),
        ({"order": "mine"}, "resource_unknown"),
        ({"order": [{"id": "mine"}]}, "resource_unknown"),
        ({"ids": ["mine", "nowhere"]}, "resource_unknown"),
        ({"lines": {"id": "mine"}}, "allow"),
        ({"order_id": "mine", "lines": {"id": "theirs"}}, "policy_denied"),
        ({"order_id": "mine", "lines": {"id": None}}, "policy_denied"),
        ({"order_id": "mine", "lines": {}}, "resource_unknown"),
        ({"order_id": "mine", "lines": {"0": {"id": "theirs"}}}, "resource_unknown"),
        ({"order_id": "mine", "lines": {"first": {"id": "theirs"}}}, "resource_unknown"),
        ({"order_id": "mine", "lines": {"id": "mine", "0": {"id": "theirs"}}}, "resource_unknown"),
        ({"order_id": "mine", "lines": [{"0": {"id": "theirs"}}]}, "policy_denied"),
        ({"order_id": "mine", "ids": {"0": "theirs"}}, "resource_unknown"),
        ({"ids": list(range(MAX_RESOURCES + 1))}, "resource_unavailable"),
    ],
)
def test_ones_own_resources_and_no_others_are_allowed(arguments: dict[str, Any], says: str) -> None:
    """At least one is named, and all that are named are the principal's."""
    assert World(OWN).says(arguments) == says


def test_what_nobody_could_say_is_denied_with_why() -> None:
    """The detail names the resource, where the call names it, and what went wrong."""
    world = World(OWN, tools=(spec("change", "write", ("ticket", "customer_id")),))
    world.resolvers._key = b"x" * 32
    decided = world.ask({"order_id": "mine"}).decision
    assert (decided.reason_code, decided.rule) == ("resource_unavailable", "resource")
    assert "order 'mine' (order_id): unavailable, what came back is no sealed" in decided.detail


def test_another_tenants_resource_and_none_at_all_get_the_same_answer() -> None:
    """Nobody learns what another tenant has."""
    world = World(OWN)
    foreign, nothing = (world.ask({"order_id": each}) for each in ("foreign", "nothing"))
    for part in ("decision", "resources"):
        told = msgspec.json.encode(getattr(foreign, part)).replace(b"foreign", b"nothing")
        assert told == msgspec.json.encode(getattr(nothing, part))


# What is denied or asked about.


@pytest.mark.parametrize("outcome", ["deny", "require_approval"])
@pytest.mark.parametrize(
    ("arguments", "is_met"),
    [
        ({"order_id": "theirs"}, True),
        ({"order_id": "nobodys"}, True),
        ({"ids": ["mine", "theirs"]}, True),
        ({"order_id": "mine"}, False),
        ({}, False),
        ({"lines": [{}]}, False),
    ],
)
def test_one_resource_is_enough_to_deny_or_to_ask(outcome: str, arguments: dict[str, Any], is_met: bool) -> None:
    """The others of the call do not matter, and a call that names none is not met."""
    assert World(rule(outcome, "{kind: order, owner: other}"), ALL).says(arguments) == (outcome if is_met else "allow")


def test_an_unknown_resource_is_denied_wherever_a_rule_that_may_match_asks() -> None:
    """Also where another rule would have allowed the call."""
    world = World(rule("deny", "{kind: order, owner: other}"), ALL)
    assert world.says({"order_id": "nowhere"}) == "resource_unknown"


@pytest.mark.parametrize("more", ["tenant: [globex]", "roles: [boss]", "tool: [look]", "effect: [read]", "labels: [x]"])
def test_where_no_rule_that_may_match_asks_nobody_is_asked(more: str) -> None:
    """A rule about other tenants, roles, tools or labels does not look into this call's resources."""
    world = World(rule("deny", "{kind: order, owner: other}", f", {more}"), ALL)
    assert world.says({"order_id": "nowhere"}) == "allow" and world.lookups.counts["asked"] == 0


def test_nobody_is_asked_about_a_call_that_is_denied_anyway() -> None:
    """By a rule without resources, by its schema, or because the tool does not exist."""
    world = World("{id: never, outcome: deny, when: {tool: [change]}}", OWN)
    assert world.says({"order_id": "nowhere"}) == "deny"
    assert world.says({"order_id": "mine", "amount": "much"}, tool="look") != "allow"
    assert world.says({"order_id": "mine"}, tool="nothing") != "allow"
    assert world.lookups.counts["asked"] == 0


def test_a_call_of_a_tool_without_resources_needs_no_answer() -> None:
    """The gate decides at once."""
    plain = ToolSpec.build(name="plain", effect="write", parameters=OPEN)
    world = World(OWN, ALL, tools=(plain, spec()))
    assert world.says({"order_id": "theirs"}, tool="plain") == "allow" and world.lookups.counts["asked"] == 0


# The conditions.


@pytest.mark.parametrize(
    ("resource", "order", "is_met"),
    [
        ("{kind: order}", "theirs", True),
        ("{kind: customer}", "mine", False),
        ("{kind: order, owner: principal}", "mine", True),
        ("{kind: order, owner: other}", "mine", False),
        ("{kind: order, owner: nobody}", "nobodys", True),
        ("{kind: order, owner: nobody}", "mine", False),
        ("{kind: order, owner: [bob, carl]}", "theirs", True),
        ("{kind: order, owner: ['b*']}", "theirs", True),
        ("{kind: order, owner: ['*']}", "nobodys", False),
        ("{kind: order, tenant: own}", "mine", True),
        ("{kind: order, tenant: own}", "shared", False),
        ("{kind: order, tenant: shared}", "shared", True),
        ("{kind: order, sensitivity: [internal, public]}", "mine", True),
        ("{kind: order, sensitivity: [restricted]}", "mine", False),
        ("{kind: order, sensitivity: cleared}", "mine", True),
        ("{kind: order, sensitivity: above}", "mine", False),
        ("{kind: order, attributes: {status: open}}", "mine", True),
        ("{kind: order, attributes: {status: [shut, open]}}", "mine", True),
        ("{kind: order, attributes: {status: shut}}", "mine", False),
        ("{kind: order, attributes: {locked: false, total: 5}}", "mine", True),
        ("{kind: order, attributes: {locked: 0}}", "mine", False),
        ("{kind: order, attributes: {total: {op: le, value: 5}}}", "mine", True),
        ("{kind: order, attributes: {total: {op: gt, value: 5}}}", "mine", False),
        ("{kind: order, attributes: {tags: {op: contains, value: big}}}", "mine", True),
        ("{kind: order, attributes: {seller: {op: eq, identity: principal}}}", "mine", True),
        ("{kind: order, attributes: {seller: {op: ne, identity: principal}}}", "mine", False),
        ("{kind: order, attributes: {buyers: {op: contains, of: order_id}}}", "mine", True),
        ("{kind: order, attributes: {total: {op: ge, of: amount}}}", "mine", False),
        ("{kind: order, attributes: {note: {op: absent}}}", "mine", True),
        ("{kind: order, attributes: {status: {op: exists}}}", "mine", True),
        ("{kind: order, path: order_id, owner: principal}", "mine", True),
        ("{kind: order, path: ids.*, owner: principal}", "mine", False),
        ("[{kind: order, owner: principal}, {kind: order, attributes: {status: open}}]", "mine", True),
        ("[{kind: order, owner: principal}, {kind: customer}]", "mine", False),
    ],
)
def test_a_condition_means_what_it_says(resource: str, order: Any, is_met: bool) -> None:
    """For a rule that allows and for one that denies."""
    assert World(rule("allow", resource)).says({"order_id": order}) == ("allow" if is_met else "policy_denied")
    assert World(rule("deny", resource), ALL).says({"order_id": order}) == ("deny" if is_met else "allow")


@pytest.mark.parametrize(
    ("resource", "allows", "denies"),
    [
        ("{kind: order, owner: principal}", False, True),
        ("{kind: order, owner: other}", False, True),
        ("{kind: order, owner: [ann]}", True, True),
        ("{kind: order, owner: nobody}", False, False),
        ("{kind: order, attributes: {seller: {op: eq, identity: principal}}}", False, True),
        ("{kind: order, attributes: {seller: {op: ne, identity: principal}}}", False, True),
        ("{kind: order, attributes: {seller: {op: eq, of: principal}}}", False, True),
        ("{kind: order, attributes: {seller: {op: eq, value: ann}}}", True, True),
    ],
)
def test_a_shared_resource_is_nobodys_for_its_owners_name_alone(resource: str, allows: bool, denies: bool) -> None:
    """An ann of another tenant may own it: no rule allows for it, and rules that deny take it for either."""
    for outcome, more, is_met in (("allow", (), allows), ("deny", (ALL,), denies)):
        world = World(rule(outcome, resource), *more)
        world.know(("order", "everybodys"), tenant=SHARED, owner="ann", attributes=ATTRIBUTES)
        assert (world.says({"order_id": "everybodys"}) == outcome) is is_met


@pytest.mark.parametrize("tenant", [ACME, GLOBEX])
def test_in_no_tenant_is_a_shared_resource_ones_own(tenant: TenantId) -> None:
    """Whoever has the name."""
    world = World(OWN)
    world.resolvers.known[(tenant, ("order", "everybodys"))] = Resource(tenant=SHARED, owner="ann")
    assert world.says({"order_id": "everybodys"}, who=identity(tenant=tenant)) == "policy_denied"


def test_a_clearance_is_the_principals() -> None:
    """What is above it can be told from what is not."""
    world = World(rule("deny", "{kind: order, sensitivity: above}"), ALL)
    world.know(("order", "secret"), sensitivity="confidential")
    assert world.says({"order_id": "secret"}, who=identity(clearance="internal")) == "deny"
    assert world.says({"order_id": "secret"}, who=identity(clearance="restricted")) == "allow"


def test_an_attribute_that_was_not_said_cannot_be_asked_for() -> None:
    """It is no value of any kind: the call is denied, by a rule of any outcome."""
    for outcome in ("allow", "deny"):
        world = World(rule(outcome, "{kind: order, attributes: {colour: red}}"), ALL)
        decided = world.ask({"order_id": "mine"}).decision
        assert decided.reason_code == "policy_error" and "colour" in decided.detail


def test_each_path_may_have_a_rule_of_its_own() -> None:
    """What the other path names is not asked about."""
    pair = (("order", "order_id"), ("order", "customer_id"))
    tool = ToolSpec.build(name="move", effect="write", parameters=OPEN, resources=pair)
    world = World(rule("allow", "{kind: order, path: order_id, owner: principal}"), tools=(tool,))
    assert world.says({"order_id": "mine", "customer_id": "nowhere"}, tool="move") == "allow"
    assert world.says({"order_id": "nowhere", "customer_id": "mine"}, tool="move") == "resource_unknown"


@pytest.mark.parametrize(
    "resource",
    [
        "order",
        "{}",
        "[]",
        "{owner: principal}",
        "{kind: order, owner: ann}",
        "{kind: order, owner: []}",
        "{kind: order, tenant: acme}",
        "{kind: order, sensitivity: [secret]}",
        "{kind: order, sensitivity: []}",
        "{kind: order, attributes: {}}",
        "{kind: order, attributes: {a: []}}",
        "{kind: order, attributes: {a: .nan}}",
        "{kind: 'or der'}",
        "{kind: order, path: 'a..b'}",
        "{kind: order, id: mine}",
    ],
)
def test_a_condition_that_is_none_is_refused_with_its_line(resource: str) -> None:
    """When the bundle is loaded."""
    with pytest.raises(InvalidConfig, match=r"policy:3"):
        World(rule("allow", resource))


# Predicates on arguments, and comparisons of two.


def argument(outcome: str, test: str) -> str:
    """Return a rule on one argument."""
    return f"{{id: r, outcome: {outcome}, when: {{arguments: [{test}]}}}}"


@pytest.mark.parametrize(
    ("arguments", "anywhere", "everywhere"),
    [
        ({}, False, False),
        ({"lines": None}, False, False),
        ({"lines": []}, False, False),
        ({"lines": [{}]}, False, False),
        ({"lines": [{"id": None}]}, False, False),
        ({"lines": [{"id": "a"}]}, True, True),
        ({"lines": [{"id": "a"}, {}]}, True, False),
        ({"lines": [{"id": "a"}, {"id": None}]}, True, False),
        ({"lines": [{"id": 0}, {"id": False}, {"id": ""}]}, True, True),
    ],
)
def test_null_is_nothing_and_of_several_some_may_be_there(
    arguments: dict[str, Any], anywhere: bool, everywhere: bool
) -> None:
    """A rule that denies needs one that is there, or one that is not; a rule that allows needs all."""
    for op, absent in (("op: exists", "op: absent"), ("op: exists, value: true", "op: exists, value: false")):
        path = "{path: lines.*.id, "
        assert (World(argument("allow", f"{path}{op}}}")).says(arguments) == "allow") is everywhere
        assert (World(argument("deny", f"{path}{op}}}"), ALL).says(arguments) == "deny") is anywhere
        assert (World(argument("allow", f"{path}{absent}}}")).says(arguments) == "allow") is not anywhere
        assert (World(argument("deny", f"{path}{absent}}}"), ALL).says(arguments) == "deny") is not everywhere


def test_a_call_that_names_no_resource_can_have_a_rule() -> None:
    """Here it is allowed, beside calls on one's own."""
    world = World(OWN, argument("allow", "{path: order_id, op: absent}").replace("r,", "none,", 1))
    assert [world.says(each) for each in ({}, {"order_id": None}, {"order_id": "mine"}, {"order_id": "theirs"})] == [
        "allow",
        "allow",
        "allow",
        "policy_denied",
    ]


@pytest.mark.parametrize(
    ("test", "arguments", "allows", "denies"),
    [
        ("{path: order_id, op: in, of: ids}", {"order_id": "a", "ids": ["a", "b"]}, True, True),
        ("{path: order_id, op: in, of: ids}", {"order_id": "c", "ids": ["a", "b"]}, False, False),
        (
            "{path: order_id, op: in, of: lines.*.id}",
            {"order_id": "b", "lines": [{"id": "a"}, {"id": "b"}]},
            True,
            True,
        ),
        ("{path: ids.*, op: in, of: lines}", {"ids": ["a", "c"], "lines": ["a", "b"]}, False, True),
        ("{path: order_id, op: eq, of: customer_id}", {"order_id": "a", "customer_id": "a"}, True, True),
        ("{path: order_id, op: ne, of: customer_id}", {"order_id": "a", "customer_id": "a"}, False, False),
        ("{path: order_id, op: ne, of: customer_id}", {"order_id": "a", "customer_id": "b"}, True, True),
        ("{path: order_id, op: eq, of: customer_id}", {"order_id": "a"}, False, False),
        ("{path: order_id, op: ne, of: customer_id}", {"order_id": "a"}, False, True),
        ("{path: order_id, op: not_in, of: ids}", {"order_id": "a"}, False, True),
        ("{path: amount, op: le, of: order_id}", {"amount": 5, "order_id": 7}, True, True),
        ("{path: order_id, op: eq, of: principal}", {"order_id": "ann"}, True, True),
        ("{path: order_id, op: in, of: attributes.orders}", {"order_id": "o1"}, True, True),
        ("{path: order_id, op: in, of: attributes.orders}", {"order_id": "o2"}, False, False),
        ("{path: order_id, op: not_in, of: attributes.orders}", {"order_id": "o2"}, True, True),
        ("{path: order_id, op: in, of: arguments.ids}", {"order_id": "a", "ids": ["a"]}, True, True),
        ("{path: order_id, op: in, of: lines.*.id}", {"order_id": "a", "lines": [{"id": "a"}, {}]}, False, True),
        ("{path: order_id, op: in, of: lines.*.id}", {"order_id": "a", "lines": [{"id": "a"}, 5]}, False, True),
        ("{path: order_id, op: in, of: lines.*.id}", {"order_id": "a", "lines": [{"id": "b"}, {}]}, False, False),
        ("{path: order_id, op: not_in, of: lines.*.id}", {"order_id": "a", "lines": [{"id": "b"}, {}]}, False, True),
        ("{path: order_id, op: eq, of: order.id}", {"order_id": "a", "order": [{"id": "b"}, {"id": "a"}]}, False, True),
        ("{path: order_id, op: eq, of: order.id}", {"order_id": "A\u200b", "order": {"id": "A"}}, False, True),
    ],
)
def test_an_argument_is_compared_with_another_or_with_the_caller(
    test: str, arguments: dict[str, Any], allows: bool, denies: bool
) -> None:
    """What there is nothing to compare with satisfies no rule that allows, and what is negated in one that denies."""
    who = identity(attributes={"orders": ("o1",)})
    assert (World(argument("allow", test)).says(arguments, who=who) == "allow") is allows
    assert (World(argument("deny", test), ALL).says(arguments, who=who) == "deny") is denies


def test_what_cannot_be_compared_is_denied() -> None:
    """A list is asked for where there is none."""
    decided = (
        World(argument("deny", "{path: order_id, op: in, of: ids}"), ALL).ask({"order_id": "a", "ids": "a"}).decision
    )
    assert decided.reason_code == "policy_error"


@pytest.mark.parametrize(
    "test",
    [
        "{path: order_id, op: absent, value: true}",
        "{path: order_id, op: absent, of: ids}",
        "{path: order_id, op: exists, of: ids}",
        "{path: order_id, op: matches, of: ids}",
        "{path: order_id, op: eq, of: ids.*}",
        "{path: order_id, op: eq, of: ids, value: 5}",
        "{path: order_id, op: eq, of: 'a..b'}",
        "{path: order_id, op: eq, of: attributes.orders}",
        "{path: order_id, op: in, of: attributes}",
        "{path: order_id, op: in, of: principal}",
        "{path: order_id, op: eq}",
    ],
)
def test_a_comparison_that_is_none_is_refused_with_its_line(test: str) -> None:
    """When the bundle is loaded."""
    with pytest.raises(InvalidConfig, match=r"policy:3"):
        World(argument("deny", test))


# What is told.


def test_the_reply_says_what_was_known_of_what_rules_ask_about() -> None:
    """And of nothing else."""
    reply = World(OWN).ask({"order_id": "mine", "customer_id": "c1"}, tool="both")
    assert [(each.kind, each.id, each.owner) for each in reply.resources] == [("order", "mine", "ann")]
    shown = str(reply.resources[0])
    assert shown.startswith("order 'mine' (order_id): owner 'ann', internal, status='open', total=5, locked=False")


@pytest.mark.parametrize("many", [["mine"] * 5_000, ["mine", None, True] * 2_000])
def test_what_is_known_is_said_once_however_often_a_call_names_it(many: list[Any]) -> None:
    """A reply does not grow by what an agent repeats."""
    reply = World(rule("deny", "{kind: order, owner: other}"), ALL).ask({"ids": many})
    assert len(reply.resources) == len(set(many))


def test_of_too_many_resources_nothing_is_said() -> None:
    """The call is denied, and what it names is in its arguments."""
    reply = World(OWN).ask({"ids": list(range(10_000))})
    assert reply.decision.reason_code == "resource_unavailable" and "10,000" in reply.decision.detail
    assert reply.resources == ()


# What people approve.


ASK = "{id: ask, outcome: require_approval, approval: {roles: [boss]}, when: {resource: {kind: order}}}"


def approved(world: World, reply: GateReply, *edited: dict[str, Any], **shown: Any) -> str:
    """Return the sealed receipt of a boss's yes, or edit, to what a runtime shows of a reply."""
    identity_ = identity()
    assert reply.approval_id is not None and reply.decision.approval is not None
    fields = {"resources": reply.resources} | shown
    request = ApprovalRequested(
        at_us=1,
        approval_id=reply.approval_id,
        tenant=identity_.tenant,
        requester=identity_.principal,
        run_id=RUN,
        step=1,
        tool="change",
        tool_version=reply.tool_version,
        policy_version="v1",
        rule="ask",
        effect="write",
        arguments=msgspec.Raw(reply.arguments),
        binding="",
        terms=reply.decision.approval,
        expires_us=2,
        **fields,
    )
    # As a journal gives it back.
    book = ApprovalBook([decode_approval_event(msgspec.json.encode(request))])
    boss = identity(principal="bob", roles=("boss",))
    arguments = msgspec.Raw(canonical(edited[0])) if edited else None
    vote = book.vote(boss, reply.approval_id, "edit" if edited else "approve", now_us=1, arguments=arguments)
    assert isinstance(vote, ApprovalVoted)
    return seal_approval(KEY, receipt_for(book.apply(vote)))


def test_an_approval_is_of_what_people_were_shown_of_the_resource() -> None:
    """They are asked again, about what is so now, if that is so no more when the call is made."""
    world = World(ASK)
    asked = world.ask({"order_id": "mine"})
    receipt = approved(world, asked)
    assert world.ask({"order_id": "mine"}, receipt=receipt).grant
    for changed in ({"owner": "bob"}, {"attributes": ATTRIBUTES | {"total": 5000}}, {"sensitivity": "restricted"}):
        world.know(("order", "mine"), **({"owner": "ann", "attributes": ATTRIBUTES} | changed))
        again = world.ask({"order_id": "mine"}, receipt=receipt)
        assert again.decision.outcome == "require_approval" and not again.grant
        assert again.approval_id not in (None, asked.approval_id)
        assert world.ask({"order_id": "mine"}, receipt=approved(world, again)).grant


def test_the_order_in_which_a_resolver_gives_attributes_is_no_change() -> None:
    """Nor is anything else that means the same."""
    world = World(ASK)
    receipt = approved(world, world.ask({"order_id": "mine"}))
    world.know(("order", "mine"), owner="ann", attributes=dict(reversed(ATTRIBUTES.items())))
    assert world.ask({"order_id": "mine"}, receipt=receipt).grant


@pytest.mark.parametrize("shown", ["nothing", "another owner", "another order"])
def test_an_approval_of_what_is_not_so_is_none(shown: str) -> None:
    """A runtime that shows people something else gets a receipt for that."""
    world = World(ASK)
    reply = world.ask({"order_id": "mine"})
    other = {
        "nothing": (),
        "another owner": tuple(msgspec.structs.replace(each, owner="bob") for each in reply.resources),
        "another order": world.ask({"order_id": "theirs"}).resources,
    }
    assert not world.ask({"order_id": "mine"}, receipt=approved(world, reply, resources=other[shown])).grant


def test_who_edits_a_call_answers_for_what_it_is_about_and_rules_hold_of_it() -> None:
    """The edited call's resources are asked about anew; a rule that denies is not overruled."""
    world = World(ASK, rule("deny", "{kind: order, owner: [carl]}"))
    world.know(("order", "carls"), owner="carl")
    reply = world.ask({"order_id": "theirs"})
    for to, says in (("mine", "allow"), ("theirs", "allow"), ("carls", "deny"), ("nowhere", "resource_unknown")):
        edited = {"order_id": to}
        assert world.says(edited, receipt=approved(world, reply, edited)) == says
    # It is no approval of another call, nor of the call as it was.
    receipt = approved(world, reply, {"order_id": "mine"})
    assert [world.says({"order_id": each}, receipt=receipt) for each in ("mine2", "theirs")] == ["require_approval"] * 2


def test_what_a_write_may_change_is_asked_about_anew_and_a_read_changes_nothing() -> None:
    """By every decision after the grant."""
    world = World(OWN, cache_ms=60_000)
    world.ask({"order_id": "mine"}, tool="look"), world.ask({"order_id": "mine"}, tool="look")
    assert world.lookups.counts["asked"] == 1
    assert world.says({"order_id": "mine"}) == "allow"
    world.know(("order", "mine"), owner="bob")
    assert world.says({"order_id": "mine"}, tool="look") == "policy_denied"


# Whatever the arguments are.

KNOWN = ["mine", "mine2", 7, "theirs", "nobodys", "shared", "foreign", "7"]
IDS = st.sampled_from([*KNOWN, "nowhere", 7.0, True, None, "", "m\u0456ne", "MINE"])
VALUES = st.recursive(
    IDS, lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"id": inner}), max_leaves=6
)
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"order_id": VALUES, "ids": VALUES, "lines": VALUES, "order": VALUES, "amount": st.integers(0, 9)}
)
MINE = {"mine", "mine2", 7}


def leaves(value: Any) -> list[Any]:
    """Return everything in a value that has no parts."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


@settings(max_examples=300, deadline=None)
@given(ARGUMENTS)
def test_no_call_on_a_resource_of_another_owner_passes_a_policy_for_ones_own(arguments: dict[str, Any]) -> None:
    """Whatever the shapes: lists, objects, repetitions, numbers and texts, look-alikes, nothing at all."""
    reply = World(OWN).ask(arguments)
    if reply.decision.outcome != "allow":
        return
    named = [leaf for name, value in arguments.items() if name != "amount" for leaf in leaves(value)]
    present = [leaf for leaf in named if leaf is not None]
    assert present and all(any(leaf == own and type(leaf) is type(own) for own in MINE) for leaf in present)
    assert [each.owner for each in reply.resources] == ["ann"] * len(reply.resources) and reply.resources
