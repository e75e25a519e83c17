"""`people.json`: whom the directory of the latest start has, so that a token is signed for somebody there is.

It is kept where the stack is down, for its keys are too.  It decides nothing: whoever presents a token is looked up in
the directory that is in force then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from airside.stack.directory import Directory, Tenant
from airside.stack.errors import AuthRefused, InvalidInput
from airside.stack.ids import parse_principal, parse_tenant
from airside.stack.input.sentences import name_hint
from airside.stack.reasons import ReasonCode

_NAME = "people.json"
_MAX_HINT = 300


def write_people(folder: Path, directory: Directory) -> None:
    """Write whom a directory has, whole or not at all."""
    part = folder / f"{_NAME}.part"
    part.write_text(
        json.dumps({name: _directory_entry(entry) for name, entry in directory.tenants.items()}), encoding="utf-8"
    )
    part.replace(folder / _NAME)


def _directory_entry(entry: Tenant) -> dict[str, Any]:
    return {
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
    parse_tenant(tenant)
    parse_principal(principal)
    try:
        people = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
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


def _unknown(reason: ReasonCode, what: str, name: str, names: Iterable[str]) -> AuthRefused:
    known = list(names)
    hint = name_hint(name, known) if known else ""
    return AuthRefused(f"token: {what}{hint if len(hint) <= _MAX_HINT else ''}", reason=reason.value)
