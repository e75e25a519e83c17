"""`KnownSecrets`: what this process has given to tools, which nothing that leaves them may hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from airside.stack.ids import TenantId
from airside.tools.secrets.redaction import NO_SECRETS, Redactor

MAX_OF_TENANT = 64
"""Secrets of one tenant that are kept, the latest: one that was changed may still be held by a client."""

MAX_TENANTS = 2_000


class Secrets(dict[str, str]):
    """Secrets by name, for one call; shows none of them."""

    def __missing__(self, name: str) -> str:
        raise KeyError(f"the tool declares no secret {name!r:.80}: @tool(secrets=({name!r:.80},))")

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self)})"

    __str__ = __repr__


class KnownSecrets:
    """Secrets by tenant, as a `Redactor` for each; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: OrderedDict[TenantId, OrderedDict[str, None]] = OrderedDict()
        self._redactors: dict[TenantId, Redactor] = {}
        self._everybody: Redactor | None = NO_SECRETS

    def __iter__(self) -> Iterator[TenantId]:
        return iter(list(self._secrets))

    def learn(self, tenant: TenantId, secrets: Iterable[str]) -> None:
        """Know secrets before they are given out."""
        with self._lock:
            own = self._secrets.setdefault(tenant, OrderedDict())
            self._secrets.move_to_end(tenant)
            before = len(own), next(reversed(own), None)
            for secret in secrets:
                own[secret] = None
                own.move_to_end(secret)
            if (len(own), next(reversed(own), None)) == before:
                return
            while len(own) > MAX_OF_TENANT:
                own.popitem(last=False)
            self._redactors[tenant] = Redactor(own)
            if len(self._secrets) > MAX_TENANTS:
                del self._redactors[self._secrets.popitem(last=False)[0]]
            self._everybody = None

    def of(self, tenant: TenantId) -> Redactor:
        """Return what takes a tenant's secrets out."""
        return self._redactors.get(tenant, NO_SECRETS)

    def everybody(self) -> Redactor:
        """Return what takes out the secrets of all tenants: for what the process itself says."""
        found = self._everybody
        if found is None:
            with self._lock:
                found = self._everybody = Redactor.of_all(self._redactors.values())
        return found
