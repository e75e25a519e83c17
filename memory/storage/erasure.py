"""Orders to erase, on disk from when they are taken until they are done: a crash in between only delays them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

from airside.memory.records import Record, is_record_id
from airside.memory.storage.durability import remove_durably, write_durably
from airside.memory.text import normal
from airside.stack.contracts.memory import Only
from airside.stack.errors import InvalidInput, MemoryFailed
from airside.stack.ids import TenantId, parse_tenant
from airside.stack.values import Value

MAX_KEPT = 1_000
"""Records that an order names to be kept: more are no choice that somebody made one by one."""

What = Literal["record", "subject", "tenant"]


class Erasure(Value):
    """An order: one record, everything about one subject, or everything of one tenant.

    What derives from that goes too: all of it, or what `only` says, but the records that `keep` names.
    """

    tenant: TenantId
    what: What
    target: str = ""
    only: Only = ""
    keep: tuple[str, ...] = ()

    def checked(self) -> Erasure:
        """Return it; raise `InvalidInput` for an order that names nothing."""
        if self.what not in get_args(What) or not isinstance(self.target, str):
            raise InvalidInput(f"erase: {self.what!r:.40} {self.target!r:.80}: one of {get_args(What)}, and a text")
        # A subject of invisible characters alone is none: records that are about nobody would be about it.
        if (self.what == "tenant") == bool(self.target) or (self.what == "subject" and not normal(self.target)):
            raise InvalidInput(f"erase: {self.what} {self.target!r:.80}: name the record or subject, none for a tenant")
        if self.only not in get_args(Only):
            raise InvalidInput(f"erase: only {self.only!r:.40}: one of {get_args(Only)[1:]}, or nothing for all")
        if len(self.keep) > MAX_KEPT:
            raise InvalidInput(f"erase: keep {len(self.keep)} records: {MAX_KEPT} at most; say only='own' instead")
        unlike = next((each for each in self.keep if not is_record_id(each)), None)
        if unlike is not None:
            raise InvalidInput(f"erase: keep {unlike!r:.80}: name records by their ids, as a dry run shows them")
        if self.what == "tenant" and (self.only or self.keep):
            raise InvalidInput("erase: of a tenant all goes: leave only and keep out, or name a subject")
        return self

    def covers(self, record: Record) -> bool:
        """Whether it names a record."""
        if self.what == "tenant":
            return True
        return self.target == record.record_id if self.what == "record" else self.is_about(record.subject)

    def is_about(self, subject: str) -> bool:
        """Whether it names what is about a subject, however that is written: texts are compared in normal form."""
        if self.what != "subject" or not subject:
            return self.what == "tenant"
        return normal(self.target) == normal(subject)


class ErasureLog:
    """The orders that are not done, the oldest first.  A tenant's are its memory's, under its lock."""

    def __init__(self, folder: Path) -> None:
        """Read them; one that was damaged shuts its tenant's memory."""
        self._folder = folder / "erasing"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[TenantId, dict[Path, Erasure]] = {}
        self._damaged: dict[TenantId, str] = {}
        for path in self._folder.glob("*.new"):
            path.unlink()  # it was never taken
        for path in sorted(self._folder.glob("*.json")):
            try:
                order = msgspec.json.decode(path.read_bytes(), type=Erasure).checked()
                self._open.setdefault(order.tenant, {})[path] = order
            except (msgspec.DecodeError, InvalidInput) as error:
                self._damaged[parse_tenant(path.stem.partition("-")[2])] = f"{path} is no order to erase: {error}"

    def tenants(self) -> list[TenantId]:
        """Return whose there are."""
        return [tenant for tenant, orders in list(self._open.items()) if orders]

    def of(self, tenant: TenantId) -> dict[Path, Erasure]:
        """Return a tenant's; raise `MemoryFailed` if what it ordered cannot be told any more."""
        if tenant in self._damaged:
            raise MemoryFailed(self._damaged[tenant])
        return dict(self._open.get(tenant, {}))

    def take(self, order: Erasure, now_us: int) -> Path:
        """Write an order down; it will be carried out from now on."""
        path = self._folder / f"{now_us:020d}-{order.tenant}.json"
        while path.exists():
            now_us += 1
            path = self._folder / f"{now_us:020d}-{order.tenant}.json"
        write_durably(path, msgspec.json.encode(order))
        self._open.setdefault(order.tenant, {})[path] = order
        return path

    def done(self, path: Path, order: Erasure) -> None:
        """Strike an order off."""
        remove_durably(path)
        self._open[order.tenant].pop(path, None)
