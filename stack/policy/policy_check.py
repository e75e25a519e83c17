"""What a policy and a directory name must exist: a misspelt deny denies nothing, a misspelt budget bounds nothing.

Each name is looked for among the app's tools and their arguments, the directory's tenants, principals, roles, scopes
and attributes, and the labels the app declares.  All problems are said at once, each with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from airside.stack.contracts.labels import SYSTEM_LABELS
from airside.stack.directory import Budget, Directory, Principal
from airside.stack.errors import InvalidConfig
from airside.stack.input.sentences import Location, name_hint
from airside.stack.policy.answer_trust import trusts_answers
from airside.stack.policy.approvers import lacking_approvers, people_of, tenants_of
from airside.stack.policy.bundle import ArgumentTest, Bundle, OriginTest, Rule, When, may_match
from airside.stack.policy.possible import names, places_at, problem_with
from airside.stack.resources import ResolverTerms
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher

_MAX_PROBLEMS = 10
_MAX_HINT = 300
Place = Callable[[Location], str]
"""Tells file and line of a place in what was loaded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that names what is not there, and where in the rule it stands."""

    location: Location
    text: str


def check_policy(
    bundle: Bundle,
    specs: Sequence[ToolSpec],
    directory: Directory,
    *,
    labels: Collection[str] | None = None,
    resolvers: Mapping[str, ResolverTerms] = MappingProxyType({}),
    place: Place = lambda _: "policy",
) -> None:
    """Raise `InvalidConfig` for every rule that names what does not exist, or asks for what can never be.

    `labels` are those the app declares; None: it declares none, and requests may carry any.  `resolvers` are the terms
    of the app's resolvers, by kind.
    """
    tools = {spec.name: spec for spec in specs}
    found = [
        f"{place(('rules', index, *problem.location))}: rule {rule.id}: {problem.text}"
        for index, rule in enumerate(bundle.rules)
        for problem in (
            *_of_rule(rule, tools, directory, labels),
            *_of_resources(rule, bundle.matched_tools(rule, specs), resolvers),
            *_of_approval(rule, tools, directory, bundle),
            *_of_answers(rule, tools, directory, bundle),
        )
    ]
    _raise(found)


def check_directory(directory: Directory, specs: Sequence[ToolSpec], *, place: Place = lambda _: "directory") -> None:
    """Raise `InvalidConfig` for a budget of a tool there is not, and a tool that nobody could call, or answer."""
    names = [spec.name for spec in specs]
    found = []
    for location, budget in _budgets(directory):
        tool = budget.unit.removeprefix("tool:")
        if tool != budget.unit and tool not in names:
            text = _missing("no tool is called", tool, names)
            found.append(f"{place((*location, 'unit'))}: {'.'.join(map(str, location))}: {text}")
    people = list(_people(directory, None))
    found += [
        f"{place(('tenants',))}: nobody has all the scopes {sorted(spec.scopes)}, so nobody could call tool {spec.name}"
        for spec in specs
        if not any(set(spec.scopes) <= set(who.scopes) for who in people)
    ]
    held = {role for who in people for role in who.roles}
    found += [
        f"{place(('tenants',))}: tool {spec.name}: {_missing('nobody who could answer holds the role', role, held)}"
        for spec in specs
        for people in (spec.answered_by, spec.asks)
        for role in (people.roles if people is not None else ())
        if role not in held
    ]
    _raise(found)


def _raise(problems: list[str]) -> None:
    if problems:
        raise InvalidConfig("\n".join(problems[:_MAX_PROBLEMS]))


def _budgets(directory: Directory) -> Iterator[tuple[Location, Budget]]:
    for index, budget in enumerate(directory.budgets):
        yield ("budgets", index), budget
    for name, tenant in directory.tenants.items():
        for index, budget in enumerate(tenant.budgets):
            yield ("tenants", name, "budgets", index), budget


def _of_rule(
    rule: Rule, tools: Mapping[str, ToolSpec], directory: Directory, labels: Collection[str] | None
) -> Iterator[Problem]:
    yield from _of_tools(rule, tools)
    yield from _of_people(rule, directory)
    for index, label in enumerate(rule.when.labels or ()):
        if labels is not None and label not in {*labels, *SYSTEM_LABELS}:
            text = _missing("no run can have the label", label, [*labels, *SYSTEM_LABELS])
            yield Problem(("when", "labels", index), text)


# Tools, their arguments and what they return.


def _of_tools(rule: Rule, tools: Mapping[str, ToolSpec]) -> Iterator[Problem]:
    for index, pattern in enumerate(rule.when.tool or ()):
        if not any(map(matcher([pattern]), tools)):
            yield Problem(("when", "tool", index), _missing("no tool is called", pattern, tools))
    named = [spec for name, spec in tools.items() if rule.when.tool is None or matcher(rule.when.tool)(name)]
    meant = [spec for spec in named if may_match(rule.when, spec)]
    if named and not meant and rule.when.tool is not None:
        what = f"none of {sorted(spec.name for spec in named)} has this effect, risk and lane"
        given = [each for each in ("effect", "risk", "lane") if getattr(rule.when, each) is not None]
        yield Problem(("when", given[0]), what)
    if rule.require is not None and meant and all(spec.lane != rule.require for spec in meant):
        what = f"none of {sorted(spec.name for spec in meant)} has a sandbox, so that it allows nothing"
        yield Problem(("require",), f"{what}: give one sandbox=True, or take require away")
    for index, test in enumerate(rule.when.arguments or ()):
        problems = [problem_with(test, spec, forbids=rule.outcome != "allow") for spec in meant or named]
        if problems and all(problems):
            who = "no tool" if rule.when.tool is None else f"none of {sorted(spec.name for spec in meant or named)}"
            # What comes nearest: a tool that has the argument says more than one that has not.
            text = max(problems, key=lambda each: not each.startswith("has an argument"))
            yield Problem(("when", "arguments", index), f"{who} {text}")
    for location, test in _comparisons(rule.when):
        for text in _of_operand(test, meant or named):
            yield Problem((*location, "of"), text)
    for index, origins in enumerate(rule.when.origins or ()):
        for text in _of_origins(rule, origins, tools):
            yield Problem(("when", "origins", index), text)


def _of_resources(rule: Rule, meant: Sequence[ToolSpec], resolvers: Mapping[str, ResolverTerms]) -> Iterator[Problem]:
    """Yield a kind that no tool declares where the rule looks, and attributes that its resolver does not give."""
    for index, test in enumerate(rule.when.resource or ()):
        where = ("when", "resource", index)
        kinds = {kind for spec in meant for kind, _ in spec.resources}
        if test.kind not in kinds:
            text = _missing("no tool it can be about declares a resource of the kind", test.kind, kinds)
            yield Problem((*where, "kind"), text)
        elif not any(test.asks(spec) for spec in meant):
            paths = {path for spec in meant for kind, path in spec.resources if kind == test.kind}
            text = _missing(
                f"no tool it can be about declares a resource of the kind {test.kind!r} at", test.path or "", paths
            )
            yield Problem((*where, "path"), text)
        known = resolvers[test.kind].attributes if test.kind in resolvers else None
        for name in test.attributes or {}:
            if known is not None and name not in known:
                text = _missing(f"the resolver of {test.kind!r} gives no attribute", name, known)
                yield Problem((*where, "attributes", name), text)


def _comparisons(when: When) -> Iterator[tuple[Location, ArgumentTest]]:
    """Yield every comparison of a rule, of arguments and of what resources have, and where it stands."""
    for index, test in enumerate(when.arguments or ()):
        yield ("when", "arguments", index), test
    for index, resource in enumerate(when.resource or ()):
        for name, test in resource.comparisons().items():
            yield ("when", "resource", index, "attributes", name), test


def _of_operand(test: ArgumentTest, specs: Sequence[ToolSpec]) -> Iterator[str]:
    """Yield what is wrong with what a test compares with: nothing is there, or its name has two meanings."""
    if test.of is None or not specs:
        return
    if test.other is not None and not any(places_at(test.other, spec, forbids=False) for spec in specs):
        yield f"no tool it can be about has an argument {test.other!r} to compare with"
    first = test.of.split(".")[0]
    both = next((spec.name for spec in specs if test.caller is not None and names(spec, first)), None)
    if both is not None:
        text = f"of: {test.of} is the caller's, but {both} has an argument {first!r}"
        yield f"{text}: write identity: {test.of}, or of: arguments.{test.of}"


def _of_origins(rule: Rule, test: OriginTest, tools: Mapping[str, ToolSpec]) -> Iterator[str]:
    for name in test.outside or test.within or ():
        if not name.startswith("tool:"):
            continue
        spec = tools.get(name.removeprefix("tool:"))
        if spec is None:
            yield _missing(f"no tool for {name!r}, none is called", name.removeprefix("tool:"), tools)
        elif test.trusts(rule.outcome) and not spec.trusted_output:
            yield (
                f"trusts {name!r}, but an outsider may write what {spec.name} returns: "
                "declare the tool with trusted_output=True if nobody can, or take it off the list"
            )


# Who asks, and who approves.


def _people(directory: Directory, tenant: list[str] | None) -> Iterator[Principal]:
    """Yield the principals of these tenants, and for an open tenant one with all that anybody of it may have."""
    for entry in tenants_of(directory, tenant).values():
        yield from (who for _, who in people_of(entry))


def _of_people(rule: Rule, directory: Directory) -> Iterator[Problem]:
    when = rule.when
    for index, pattern in enumerate(when.tenant or ()):
        if not any(map(matcher([pattern]), directory.tenants)):
            yield Problem(("when", "tenant", index), _missing("no tenant is called", pattern, directory.tenants))
    meant = tenants_of(directory, when.tenant).values()
    names = {name for entry in meant for name in entry.principals}
    for index, pattern in enumerate(when.principal or ()):
        if meant and not any(entry.open for entry in meant) and not any(map(matcher([pattern]), names)):
            yield Problem(("when", "principal", index), _missing("no principal is called", pattern, names))
    people = list(_people(directory, when.tenant))
    yield from _of_grants(when, people)
    known = {attribute for who in people for attribute in who.attributes}
    for location, test in _comparisons(when):
        name = (test.caller or "").removeprefix("attributes.")
        if test.caller not in (None, "principal", "tenant") and name not in known:
            where = "identity" if test.of is None else "of"
            yield Problem((*location, where), _missing("nobody has the attribute", name, known))


def _of_grants(when: When, people: list[Principal]) -> Iterator[Problem]:
    roles = {role for who in people for role in who.roles}
    for index, role in enumerate(when.roles or ()):
        if role not in roles:
            yield Problem(("when", "roles", index), _missing("nobody holds the role", role, roles))
    scopes = {scope for who in people for scope in who.scopes}
    for index, scope in enumerate(when.scopes or ()):
        if scope not in scopes:
            yield Problem(("when", "scopes", index), _missing("nobody has the scope", scope, scopes))
    wanted = set(when.scopes or ())
    if wanted <= scopes and people and not any(wanted <= set(who.scopes) for who in people):
        yield Problem(("when", "scopes"), f"nobody has all of {sorted(wanted)}")


def _of_approval(rule: Rule, tools: Mapping[str, ToolSpec], directory: Directory, bundle: Bundle) -> Iterator[Problem]:
    """Yield the roles that nobody holds who could approve a call the rule is about, and a quorum that no tenant has."""
    if rule.approval is None or not (meant := bundle.matched_tools(rule, tools.values())):
        return
    if all(spec.answered_by for spec in meant):
        text = (
            f"asks people about calls of {', '.join(s.name for s in meant)}, which are questions: nobody approves those"
        )
        yield Problem(("outcome",), text)
    if bundle.shared:
        return
    wanted = set(rule.approval.roles)
    held = {role for who in _people(directory, rule.when.tenant) for role in who.roles}
    for index, role in enumerate(rule.approval.roles):
        if role not in held:
            text = _missing("nobody who could approve holds the role", role, held)
            yield Problem(("approval", "roles", index), text)
    most = lacking_approvers(rule, list(tools.values()), tenants_of(directory, rule.when.tenant))
    if wanted <= held and most is not None:
        who = f"one of the roles {sorted(wanted)} beside whoever asks"
        text = f"{rule.approval.quorum} people must approve, and in no tenant more than {most} hold {who}"
        yield Problem(("approval", "quorum"), text)


def _of_answers(rule: Rule, tools: Mapping[str, ToolSpec], directory: Directory, bundle: Bundle) -> Iterator[Problem]:
    """Yield where a rule trusts answers of people so that nobody's counts (`answer_trust.py`)."""
    if bundle.shared or not trusts_answers(rule):
        return
    asking = [each for each in bundle.rules if each.approval and each.when.origins]
    acting = [spec for spec in bundle.matched_tools(rule, tools.values()) if not spec.answered_by]
    unasked = [
        spec.name
        for spec in acting
        if any(
            not any(may_match(each.when, spec) and matcher(each.when.tenant or ["*"])(tenant) for each in asking)
            for tenant in tenants_of(directory, rule.when.tenant)
        )
    ]
    if asking and not unasked:
        return
    which = f" of calls of {', '.join(unasked[:_MAX_PROBLEMS])}" if unasked else ""
    text = f"trusts 'person', but no rule asks people about origins{which}: so nobody's answer counts"
    yield from (
        Problem(("when", "origins", index), text)
        for index, test in enumerate(rule.when.origins or ())
        if test.trusts_answers(rule.outcome)
    )


def _missing(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such name, and which may be meant."""
    names = sorted(known)
    hint = name_hint(name, names) if names else "; there are none"
    return f"{what} {name!r:.80}{hint if len(hint) <= _MAX_HINT else f'; there are {len(names):,} others'}"
