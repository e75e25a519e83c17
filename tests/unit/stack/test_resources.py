"""What a call is about: which places of its arguments name a resource, and what a decision knows of each."""

from __future__ import annotations

from typing import Any

import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.ids import TenantId
from airside.stack.resources import (
    MAX_ID_CHARACTERS,
    SHARED,
    ResolveReply,
    Resource,
    ResourceFact,
    ResourceReference,
    checked_resources,
    facts_of,
    keys_of,
    referenced_resources,
)
from airside.stack.schema.toolspec import ToolSpec

ACME = TenantId("acme")


class Declares:
    """What declares resources and nothing else."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.resources = pairs


def named(arguments: dict[str, Any], *paths: str) -> list[tuple[str, Any]]:
    """Return path and id of every place that names an order; `missing` for an item that should."""
    found = referenced_resources(Declares(*(("order", path) for path in paths)), arguments)
    return [(each.path, "missing" if each.missing else each.id) for each in found]


@pytest.mark.parametrize(
    ("arguments", "path", "found"),
    [
        ({"order_id": "o1"}, "order_id", [("order_id", "o1")]),
        ({"order_id": 7}, "order_id", [("order_id", 7)]),
        ({"order": {"id": "o1"}}, "order.id", [("order.id", "o1")]),
        ({"ids": ["o1", 7, "o1"]}, "ids.*", [("ids.0", "o1"), ("ids.1", 7)]),
        ({"ids": [None, "o1", None, "o1"]}, "ids.*", [("ids.0", "missing"), ("ids.1", "o1")]),
        ({"ids": "o1"}, "ids.*", [("ids", "o1")]),
        ({"lines": [{"id": "o1"}, {"id": "o2"}]}, "lines.*.id", [("lines.0.id", "o1"), ("lines.1.id", "o2")]),
        ({"ids": ["o1", "o2"]}, "ids.1", [("ids.1", "o2")]),
        ({"a.b": "o1"}, r"a\.b", [(r"a\.b", "o1")]),
        ({"order_id": ""}, "order_id", [("order_id", "")]),
    ],
)
def test_a_text_or_whole_number_at_a_declared_path_names_a_resource(
    arguments: dict[str, Any], path: str, found: list[Any]
) -> None:
    """The id is the argument's value itself, with its type."""
    assert named(arguments, path) == found


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, "order_id"),
        ({"order_id": None}, "order_id"),
        ({"order": {}}, "order.id"),
        ({"order": None}, "order.id"),
        ({"ids": []}, "ids.*"),
        ({"ids": None}, "ids.*"),
        ({"ids": ["o1"]}, "ids.1"),
    ],
)
def test_an_argument_that_is_not_there_or_null_names_none(arguments: dict[str, Any], path: str) -> None:
    """There is no resource to ask about."""
    assert named(arguments, path) == []


@pytest.mark.parametrize(
    ("arguments", "path", "place"),
    [
        ({"ids": ["o1", None]}, "ids.*", "ids.1"),
        ({"lines": [{"id": "o1"}, {}]}, "lines.*.id", "lines.1.id"),
        ({"lines": [{"id": "o1"}, {"id": None}]}, "lines.*.id", "lines.1.id"),
        ({"lines": [{"id": "o1"}, None]}, "lines.*.id", "lines.1"),
        ({"lines": {"id": None}}, "lines.*.id", "lines.id"),
    ],
)
def test_an_item_that_names_none_is_missing(arguments: dict[str, Any], path: str, place: str) -> None:
    """Of a list, every item should name one; a rule that allows by resources does not match."""
    assert named(arguments, path)[-1] == (place, "missing")


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"order_id": True}, "order_id"),
        ({"order_id": 1.0}, "order_id"),
        ({"order_id": ["o1"]}, "order_id"),
        ({"order_id": {"id": "o1"}}, "order_id"),
        ({"ids": [["o1"]]}, "ids.*"),
        ({"order": "o1"}, "order.id"),
        ({"order": [{"id": "o1"}]}, "order.id"),
        ({"order_id": "o" * (MAX_ID_CHARACTERS + 1)}, "order_id"),
    ],
)
def test_a_value_of_another_shape_is_a_resource_nobody_knows(arguments: dict[str, Any], path: str) -> None:
    """It is not overlooked: the tool may make something of it."""
    (found,) = referenced_resources(Declares(("order", path)), arguments)
    assert found.id is None and not found.missing and keys_of([found]) == frozenset()
    (fact,) = facts_of([found], {}, ACME)
    assert fact.state == "unknown"


def test_the_same_resource_named_twice_is_asked_about_once() -> None:
    """A number and the text of it are two."""
    found = referenced_resources(Declares(("order", "a"), ("order", "b.*")), {"a": "7", "b": ["7", 7, 7]})
    assert keys_of(found) == {("order", "7"), ("order", 7)}


def fact(reply: ResolveReply | None) -> ResourceFact:
    """Return what acme knows of order o1 by this answer."""
    place = ResourceReference("order", "order_id", "order_id", "o1", False)
    (known,) = facts_of([place], {} if reply is None else {("order", "o1"): reply}, ACME)
    return known


def test_of_ones_own_resource_everything_is_known() -> None:
    """Owner, sensitivity and attributes are the resolver's."""
    mine = Resource(tenant=ACME, owner="ann", sensitivity="confidential", attributes={"total": 5, "tags": ("a",)})
    known = fact(ResolveReply(state="found", resource=mine))
    assert (known.state, known.owner, known.sensitivity, known.shared) == ("found", "ann", "confidential", False)
    assert known.attributes == {"total": 5, "tags": ("a",)}


def test_another_tenants_resource_is_told_from_none_by_nobody() -> None:
    """Neither decision nor journal says that it exists."""
    theirs = Resource(tenant=TenantId("globex"), owner="gus", attributes={"total": 5})
    assert fact(ResolveReply(state="found", resource=theirs)) == fact(ResolveReply(state="unknown"))


def test_a_shared_resource_is_every_tenants() -> None:
    """It has the tenant that nobody can be."""
    known = fact(ResolveReply(state="found", resource=Resource(tenant=SHARED)))
    assert (known.state, known.shared, known.owner) == ("found", True, None)


@pytest.mark.parametrize(
    "reply",
    [None, ResolveReply(state="late", detail="x"), ResolveReply(state="failed"), ResolveReply(state="found")],
)
def test_what_nobody_could_say_is_unavailable(reply: ResolveReply | None) -> None:
    """Late, broken, without an answer, or an answer without a resource."""
    assert fact(reply).state == "unavailable"


SCHEMA = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "lines": {"type": "array", "items": {"type": "object"}}},
}


@pytest.mark.parametrize(
    ("declared", "pairs"),
    [
        (("order", "order_id"), (("order", "order_id"),)),
        (["order", "order_id"], (("order", "order_id"),)),
        ([("order", "order_id"), ("line", "lines.*.id")], (("order", "order_id"), ("line", "lines.*.id"))),
        ((("order", "order_id"), ("order", "order_id")), (("order", "order_id"),)),
        ((), ()),
    ],
)
def test_a_tool_declares_one_pair_or_several(declared: Any, pairs: Any) -> None:
    """A kind and a path; the same one twice is one."""
    assert checked_resources("t", declared) == pairs


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("order", "neither"),
        (("order",), "neither"),
        (("order", 5), "neither"),
        ([("order", "order_id"), "order"], "neither"),
        ({"order": "order_id"}, "neither"),
        (("or der", "order_id"), "resource kind"),
        (("", "order_id"), "resource kind"),
        (("order", "order..id"), "path"),
    ],
)
def test_what_is_no_declaration_is_refused(declared: Any, says: str) -> None:
    """The message names the tool and what it declares."""
    with pytest.raises(InvalidConfig, match=says):
        checked_resources("t", declared)


def test_a_resource_at_no_argument_is_refused() -> None:
    """It would never name anything."""
    with pytest.raises(InvalidConfig, match="tool t: resource order: 'oder_id' is none of its arguments"):
        ToolSpec.build(name="t", effect="read", parameters=SCHEMA, resources=(("order", "oder_id"),))


def test_resources_are_part_of_a_tools_version_and_none_changes_nothing() -> None:
    """An approval of a call that was decided on otherwise does not fit it."""
    without = ToolSpec.build(name="t", effect="read", parameters=SCHEMA)
    assert ToolSpec.build(name="t", effect="read", parameters=SCHEMA, resources=()).version == without.version
    declares = ToolSpec.build(name="t", effect="read", parameters=SCHEMA, resources=(("order", "order_id"),))
    assert declares.version != without.version and declares.resources == (("order", "order_id"),)


def test_of_a_resource_no_more_is_said_than_is_known() -> None:
    known = ResourceFact(kind="order", path="order", declared="order", state="found", id="4711", owner="bob")
    assert str(known) == "order '4711' (order): owner 'bob'"
