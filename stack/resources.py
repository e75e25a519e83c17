"""Resources: what a call is about (an order, an account), and what a decision may know of each.

A tool declares which of its arguments name resources, as pairs of a kind and a path.  The id is the argument's JSON
value, a text or a whole number, as it is decided on: 7 and "7" are two ids, and so are two texts that only look alike.
What a resolver of the app says of an id is a `Resource`; what a decision knew of every id is a `ResourceFact`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from msgspec import Meta

from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId, TenantId
from airside.stack.schema.paths import EVERY, Parts, index_of, parse_path, show_path
from airside.stack.values import Clearance, Spoken, Value

MAX_RESOURCES = 64
"""Resources that are looked up for one call: each is a read, and its facts are journaled with the decision."""

MAX_ID_CHARACTERS = 512
"""No id is longer; a text that is one is no id, and nobody is asked about it."""

MAX_RESOURCE_BYTES = 8192
"""What a resolver may say of one resource: facts to decide on, not the resource itself."""

SHOWN_ATTRIBUTES = 20
"""Attributes of one resource that a person is shown; what is left out is said."""

SHARED = TenantId("*")
"""The tenant of a resource that all tenants use; no tenant can be called so."""

KIND = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)

ResourceId = str | int
Scalar = bool | int | float | str | None
Attribute = Scalar | tuple[Scalar, ...]
Declared = tuple[str, str] | Sequence[tuple[str, str]]
"""What a tool says of its resources: one pair of a kind and a path, or several."""

Key = tuple[str, ResourceId]
"""A kind and an id."""

OnChange = Callable[[Iterable[Key], int], None]
"""Is told which resources a call that was granted may change, and how many milliseconds it may take."""


class Resource(Spoken):
    """What a resolver says of one resource: whose it is, and what rules may ask about.

    `tenant` is the tenant it belongs to, or `SHARED`; another tenant's is unknown to whoever asks.  `owner` is the
    principal it belongs to, None if nobody.  `attributes` are scalars and lists of scalars.
    """

    tenant: Annotated[TenantId, Meta(min_length=1, max_length=128)]
    owner: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    sensitivity: Clearance = "internal"
    attributes: dict[Annotated[str, Meta(min_length=1, max_length=128)], Attribute] = {}


class ResourceFact(Value):
    """What a decision knew of one resource of a call: `path` is where the call names it, `declared` by which path.

    `unknown`: nobody knows it, it is another tenant's, or the value is no id; `unavailable`: nobody could say in time;
    `missing`: the item of a list that should name it does not.  Only of what was `found` there is more.
    """

    kind: str
    path: str
    declared: str
    state: Literal["found", "unknown", "unavailable", "missing"]
    id: ResourceId | None = None
    owner: str | None = None
    shared: bool = False
    sensitivity: Clearance | None = None
    attributes: dict[str, Attribute] = {}
    detail: str = ""

    def brief(self) -> str:
        """Return which it is and whose, without what rules may ask beyond that."""
        if self.state != "found":
            return f"{self.kind} {self.id!r:.60} ({self.state})"
        return f"{self.kind} {self.id!r:.60} of {'nobody' if self.owner is None else repr(self.owner)}"

    def __str__(self) -> str:
        named = "none is named" if self.id is None else repr(self.id)
        text = f"{self.kind} {named:.200} ({self.path:.100})"
        if self.state != "found":
            return f"{text}: {self.state}{f', {self.detail}' if self.detail else ''}"
        owner = "nobody's" if self.owner is None else f"owner {self.owner!r}"
        first = list(self.attributes.items())[:SHOWN_ATTRIBUTES]
        shown = [f"{_as_name(name):.100}={value!r:.100}" for name, value in first]
        if (left := len(self.attributes) - len(first)) > 0:
            shown.append(f"and {left:,} attributes that are not shown")
        return ", ".join([f"{text}: {owner}", *["shared"] * self.shared, *filter(None, [self.sensitivity]), *shown])


def _as_name(name: str) -> str:
    """Return an attribute's name, quoted where it could be read as more than a name."""
    return name if KIND.fullmatch(name) else repr(name)


class ResolverTerms(Value):
    """How long a resolver may take, how long its answer may be kept, and the attributes it gives, if it says."""

    timeout_ms: int
    cache_ms: int
    attributes: tuple[str, ...] | None = None


class ResolveRequest(Value, array_like=True):
    """A question of the gate's, which seals it: of which resource, for whose run, until when it may be answered."""

    issuer: str
    tenant: TenantId
    principal: str
    run_id: RunId
    kind: str
    id: ResourceId
    expires_us: int


class ResolveReply(Value, array_like=True):
    """What became of it: what was `found`, that there is none (`unknown`), or why nobody can say."""

    state: Literal["found", "unknown", "late", "failed"]
    resource: Resource | None = None
    detail: str = ""


class ResourceReference(NamedTuple):
    """A place of a call's arguments that names a resource; `id` is None where the value there is none."""

    kind: str
    declared: str
    path: str
    id: ResourceId | None
    missing: bool


class ResourceLookup(NamedTuple):
    """What must be known of a call before it can be decided on, and who makes it."""

    tenant: TenantId
    principal: str
    run_id: RunId
    keys: frozenset[Key]


class HasResources(Protocol):
    """What declares resources: a tool's spec."""

    @property
    def resources(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a kind and a path."""


def checked_resources(name: str, declared: Declared) -> tuple[tuple[str, str], ...]:
    """Return what a tool declares as pairs of a kind and a path; raise `InvalidConfig` for what is none."""
    pairs: Any = [declared] if _is_pair(declared) else declared
    if not isinstance(pairs, tuple | list) or not all(_is_pair(pair) for pair in pairs):
        raise InvalidConfig(
            f"tool {name}: resource {declared!r:.80} is neither (kind, argument) nor a list of such pairs"
        )
    for kind, path in pairs:
        if KIND.fullmatch(kind) is None:
            raise InvalidConfig(f"tool {name}: resource kind {kind!r:.80}: use up to 64 letters, digits, '_' and '-'")
        parse_path(path)
    return tuple(dict.fromkeys((kind, path) for kind, path in pairs))


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def referenced_resources(spec: HasResources, arguments: Mapping[str, Any]) -> tuple[ResourceReference, ...]:
    """Return what the complete arguments name, of each declared path: the first place of each resource.

    An argument that is not there, or null, names none; in a list (`*`) an item without one is `missing`.  A call may
    name one resource a hundred thousand times; what is known of it is said once.
    """
    found: dict[tuple[str, str, ResourceId | None, bool], ResourceReference] = {}
    for kind, path in spec.resources:
        for named in _named(kind, path, arguments):
            found.setdefault((kind, path, named.id, named.missing), named)
    return tuple(found.values())


def keys_of(named: Iterable[ResourceReference]) -> frozenset[Key]:
    """Return the resources that somebody can be asked about."""
    return frozenset((each.kind, each.id) for each in named if each.id is not None)


def facts_of(
    named: Iterable[ResourceReference], answers: Mapping[Key, ResolveReply], tenant: TenantId
) -> tuple[ResourceFact, ...]:
    """Return what is known of each place: of a resource of another tenant no more than that it is unknown."""
    return tuple(_fact(each, answers, tenant) for each in named)


def _fact(named: ResourceReference, answers: Mapping[Key, ResolveReply], tenant: TenantId) -> ResourceFact:
    def fact(state: Literal["unknown", "unavailable", "missing"], detail: str = "") -> ResourceFact:
        return ResourceFact(
            kind=named.kind, path=named.path, declared=named.declared, state=state, id=named.id, detail=detail
        )

    if named.id is None:
        return fact("missing") if named.missing else fact("unknown", "the value is no id")
    reply = answers.get((named.kind, named.id))
    if reply is None:
        return fact("unavailable", "nobody was asked")
    found = reply.resource
    if reply.state == "unknown" or (found is not None and found.tenant not in (tenant, SHARED)):
        return fact("unknown")
    if reply.state != "found" or found is None:
        return fact("unavailable", reply.detail)
    return ResourceFact(
        kind=named.kind,
        path=named.path,
        declared=named.declared,
        state="found",
        id=named.id,
        owner=found.owner,
        shared=found.tenant == SHARED,
        sensitivity=found.sensitivity,
        attributes=found.attributes,
    )


def _named(kind: str, path: str, arguments: Mapping[str, Any]) -> Iterator[ResourceReference]:
    for place, value, missing in _walk(arguments, (), parse_path(path), in_list=False):
        is_id = isinstance(value, str | int) and not isinstance(value, bool)
        is_id = is_id and not (isinstance(value, str) and len(value) > MAX_ID_CHARACTERS)
        yield ResourceReference(kind, path, show_path(place), value if is_id else None, missing)


def _walk(
    value: Any, place: tuple[str, ...], left: Parts, *, in_list: bool
) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Yield place, value and whether it is missing; what is of another shape than the path yields a value no id is."""
    if value is None:
        if in_list:
            yield place, None, True
        return
    if not left:
        yield place, value, False
        return
    part, rest = left[0], left[1:]
    if part is EVERY:
        # A tool may take one, or a list of them: what is no list stands for itself.
        if not isinstance(value, list):
            if isinstance(value, Mapping) and not _is_one(value, rest):
                yield place, {}, False
            else:
                yield from _walk(value, place, rest, in_list=True)
            return
        for index, item in enumerate(value):
            yield from _walk(item, (*place, str(index)), rest, in_list=True)
        return
    inner: Any = None
    if isinstance(value, Mapping):
        inner = value.get(part)
    elif isinstance(value, list) and (at := index_of(part)) is not None:
        inner = value[at] if at < len(value) else None
    else:
        yield place, {}, False
        return
    yield from _walk(inner, (*place, part), rest, in_list=in_list)


def _is_one(value: Mapping[str, Any], rest: Parts) -> bool:
    """Whether an object where a list is declared can only be one item of it, and no list in another shape."""
    return (not rest or rest[0] is EVERY or rest[0] in value) and all(index_of(key) is None for key in value)
