"""Orders to erase, on disk from when they are taken until they are done: a crash in between only delays them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from airside.memory.files import remove_durably, write_durably
from airside.memory.records import Record
from airside.stack.errors import InvalidInput, MemoryFailed
from airside.stack.ids import TenantId
from airside.stack.values import Value

What = Literal["record", "subject", "tenant"]


class Erasure(Value):
    """An order: one record, everything about one subject, or everything of one tenant."""

    tenant: TenantId
    what: What
    target: str = ""

    def checked(self) -> Erasure:
        """Return it; raise `InvalidInput` for an order that names nothing."""
        if (self.what == "tenant") == bool(self.target):
            raise InvalidInput(f"erase: {self.what} {self.target!r:.80}: name the record or subject, none for a tenant")
        return self

    def covers(self, record: Record) -> bool:
        """Whether a record goes."""
        if self.what == "tenant":
            return True
        return self.target == (record.record_id if self.what == "record" else record.subject)


class Receipt(Value):
    """What was erased: no result, file, old version, index or cache holds it any more.

    `records` are the ids.  The journal is the audit log: what a run's steps said there stays as long as the journal.
    """

    tenant: TenantId
    what: What
    target: str
    records: tuple[str, ...]
    at_us: int


class Orders:
    """The orders that are not done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "erasing"
        self._folder.mkdir(parents=True, exist_ok=True)

    def open(self) -> dict[Path, Erasure]:
        """Return them, the oldest first; raise `MemoryFailed` for a file that is none."""
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                found[path] = msgspec.json.decode(path.read_bytes(), type=Erasure).checked()
            except (msgspec.DecodeError, InvalidInput) as error:
                raise MemoryFailed(f"{path} is no order to erase: {error}") from None
        return found

    def take(self, order: Erasure, now_us: int) -> Path:
        """Write an order down; it will be carried out from now on."""
        path = self._folder / f"{now_us:020d}-{order.tenant}.json"
        while path.exists():
            now_us += 1
            path = self._folder / f"{now_us:020d}-{order.tenant}.json"
        write_durably(path, msgspec.json.encode(order))
        return path

    def done(self, path: Path) -> None:
        """Strike an order off."""
        remove_durably(path)
