"""`people.json`: whom the directory of the latest start has, so that a token is signed for somebody there is.

It is kept where the stack is down, for its keys are too.  It decides nothing: whoever presents a token is looked up in
the directory that is in force then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from airside.actors.client.state_files import write_whole
from airside.stack.directory import Directory, Tenant
from airside.stack.errors import AuthRefused, InvalidInput
from airside.stack.ids import parse_principal, parse_tenant
from airside.stack.input.sentences import name_hint
from airside.stack.policy.approvers import UNLISTED, people_of
from airside.stack.reasons import ReasonCode

_NAME = "people.json"
_MAX_HINT = 300


People = dict[str, Any]
"""What the file has, by tenant."""


class Known(NamedTuple):
    """What is known of a principal's runs before there are any: `denied` tools, and the most that one may cost."""

    denied: tuple[str, ...]
    most_cost_microusd: int


def write_people(
    folder: Path, directory: Directory, denied: Mapping[str, Mapping[str, Sequence[str]]] | None = None
) -> None:
    """Write whom a directory has, and the tools each is `denied`, whole or not at all."""
    write_whole(folder / _NAME, json.dumps(people_in(directory, denied)))


def people_in(directory: Directory, denied: Mapping[str, Mapping[str, Sequence[str]]] | None = None) -> People:
    """Return whom a directory has, as the file would have it."""
    return {name: _directory_entry(entry, (denied or {}).get(name, {})) for name, entry in directory.tenants.items()}


def read_people(folder: Path) -> People | None:
    """Return whom the directory of the latest start has; None where no stack was ever started."""
    try:
        found: People = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _directory_entry(entry: Tenant, denied: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    costs = {name: entry.limits_of(who).max_cost_microusd for name, who in people_of(entry)}
    return {
        "denied": dict(denied),
        "most_cost_microusd": costs,
        "principals": sorted(entry.principals),
        "open": entry.open,
        "open_roles": entry.open_roles,
        "open_scopes": entry.open_scopes,
    }


def check_known(
    folder: Path, tenant: str, principal: str, *, roles: Sequence[str] = (), scopes: Sequence[str] = ()
) -> None:
    """Raise `AuthRefused` for whom the directory does not have, `InvalidInput` for roles or scopes a token cannot give.

    `InvalidId` for what is no name at all.  Where no stack was ever started nobody knows, and nothing is raised.
    """
    check_listed(read_people(folder), tenant, principal, roles=roles, scopes=scopes)


def check_listed(
    people: People | None, tenant: str, principal: str, *, roles: Sequence[str] = (), scopes: Sequence[str] = ()
) -> None:
    """Raise as `check_known` does, for people that were read before; None: nobody knows."""
    parse_tenant(tenant)
    parse_principal(principal)
    if people is None:
        return
    entry = people.get(tenant)
    if entry is None:
        raise _unknown(ReasonCode.TENANT_UNKNOWN, f"no tenant is called {tenant!r}", tenant, people)
    if principal in entry["principals"]:
        if roles or scopes:
            raise InvalidInput(f"token: {principal} is listed: its roles and scopes are those of the directory")
        return
    if not entry["open"]:
        what = f"{tenant} has no principal {principal!r}, and takes none that is not listed"
        raise _unknown(ReasonCode.PRINCIPAL_UNKNOWN, what, principal, entry["principals"])
    for kind, given in (("role", roles), ("scope", scopes)):
        for name in given:
            if name not in (allowed := entry[f"open_{kind}s"]):
                hint = name_hint(name, allowed) if allowed else "; there are none"
                raise InvalidInput(f"token: {tenant} gives nobody by token the {kind} {name!r:.60}{hint}")


def name_hint_for(folder: Path, tenant: str, principal: str) -> str:
    """Return who may be meant by a tenant or principal that the directory does not have, as the end of a sentence."""
    people = read_people(folder) or {}
    entry = people.get(tenant)
    if entry is None:
        return _hint(tenant, people)
    return "" if entry["open"] or principal in entry["principals"] else _hint(principal, entry["principals"])


def known_of(people: People | None, tenant: str, principal: str) -> Known | None:
    """Return what is known of a principal's runs; None where no stack was ever started, or one before this version."""
    try:
        entry = (people or {})[tenant]
        name = principal if principal in entry["principals"] else UNLISTED
        return Known(tuple(entry["denied"].get(name, ())), entry["most_cost_microusd"][name])
    except KeyError:
        return None


def _unknown(reason: ReasonCode, what: str, name: str, names: Iterable[str]) -> AuthRefused:
    return AuthRefused(f"token: {what}{_hint(name, names)}", reason=reason.value)


def _hint(name: str, names: Iterable[str]) -> str:
    known = list(names)
    hint = name_hint(name, known) if known else ""
    return hint if len(hint) <= _MAX_HINT else ""
