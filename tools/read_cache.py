"""`ReadCache`: what a read returned is its result again, for a while, to the same principal.

A tool may answer by whatever its context shows: the tenant, the principal, what the run has taken in.  So all of that
is in the key, beside the arguments and the tool's version; roles, scopes and clearance are the gate's, which decides
about each call before it is looked up here.  Whatever a tenant changes drops all that is kept for it in this executor.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from airside.stack.ids import PrincipalId, TenantId
from airside.stack.values import ToolResult

MAX_BYTES = 32 * 2**20
MAX_ENTRIES = 20_000
MAX_OF_TENANT = 1_000
"""Of one tenant, so that none has all of them."""


class ReadKey(NamedTuple):
    """What an answer depends on."""

    tool: str
    version: str
    arguments_sha256: str
    principal: PrincipalId
    labels: tuple[str, ...]


class _Kept(NamedTuple):
    result: ToolResult
    until_us: int
    size: int


class ReadCache:
    """The results that one executor keeps, by tenant, the oldest forgotten first."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._kept: OrderedDict[TenantId, OrderedDict[ReadKey, _Kept]] = OrderedDict()
        self._changes: dict[TenantId, int] = {}
        self._bytes = 0
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def get(self, tenant: TenantId, key: ReadKey) -> ToolResult | None:
        """Return what is kept for a call, if it is still good."""
        own = self._kept.get(tenant)
        found = own.get(key) if own is not None else None
        if found is None:
            return None
        if found.until_us <= self._now_us():
            self._drop(tenant, key)
            return None
        return found.result

    def changes(self, tenant: TenantId) -> int:
        """Return how often a tenant has changed something: what was read before that is not kept after it."""
        return self._changes.get(tenant, 0)

    def put(self, tenant: TenantId, key: ReadKey, result: ToolResult, keep_ms: int, changes: int) -> None:
        """Keep a result, unless the tenant has changed something since it was asked for, at `changes`."""
        if changes != self.changes(tenant):
            return
        self._drop(tenant, key)
        size = len(bytes(result.output)) + sys.getsizeof(key)
        own = self._kept.setdefault(tenant, OrderedDict())
        own[key] = _Kept(result, self._now_us() + keep_ms * 1000, size)
        self._bytes, self._entries = self._bytes + size, self._entries + 1
        if len(own) > MAX_OF_TENANT:
            self._drop(tenant, next(iter(own)))
        while self._bytes > MAX_BYTES or self._entries > MAX_ENTRIES:
            first = next(iter(self._kept))
            self._drop(first, next(iter(self._kept[first])))

    def drop(self, tenant: TenantId) -> None:
        """Know that a tenant changes something."""
        self._changes[tenant] = self.changes(tenant) + 1
        for key in list(self._kept.get(tenant, ())):
            self._drop(tenant, key)

    def _drop(self, tenant: TenantId, key: ReadKey) -> None:
        own = self._kept.get(tenant)
        found = own.pop(key, None) if own is not None else None
        if found is not None:
            self._bytes, self._entries = self._bytes - found.size, self._entries - 1
        if own is not None and not own:
            del self._kept[tenant]
