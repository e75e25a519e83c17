"""What people order memory to do, sealed with the stack's key: by an operator who holds it, by Ingress for a keeper."""

from __future__ import annotations

from typing import Literal

import msgspec

from airside.stack.contracts.memory import Candidate, Only, RecallRequest
from airside.stack.security.seals import unwrap, wrap
from airside.stack.values import Trust, Value

KEEPER = "memory_keeper"
"""The role by which a principal keeps its tenant's memory in order."""

KEEPERS_ACTIONS = frozenset({"records", "pin", "unpin", "quarantine", "release", "erase_record", "erase_subject"})
"""What the role is enough for; everything else is an operator's."""

READING = frozenset({"search", "records", "export"})
"""Actions that change nothing."""

ORDER_US = 300 * 1_000_000
"""How long an order is good for: it is carried out at once, and may not be found and used later."""

_PURPOSE = "memory-order"

MemoryAction = Literal[
    "remember",
    "search",
    "records",
    "pin",
    "unpin",
    "quarantine",
    "release",
    "erase_record",
    "erase_subject",
    "erase_tenant",
    "export",
    "import",
    "reembed",
    "sweep",
]


class MemoryOrder(Value):
    """An order about one tenant's memory; `target` is a record's id or a subject, `by` who gave it.

    `only`, `keep` and `dry_run` are of an order to erase: what of that which derives from the target goes, which
    records stay, and whether it is only asked what would go.

    `nonce` is random: an order that changes something is carried out once, whoever sends it again.
    """

    action: MemoryAction
    tenant: str
    by: str
    at_us: int
    nonce: bytes
    target: str = ""
    candidate: Candidate | None = None
    request: RecallRequest | None = None
    data: bytes = b""
    trust: Trust = "medium"
    only: Only = ""
    keep: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is different when it was carried out."""
        return self.action not in READING and not self.dry_run


class MemoryAnswer(Value):
    """What became of it: `data` as the action has it, or a `problem`, with a code where it is who asks."""

    data: bytes = b""
    problem: str = ""
    code: str = ""


def seal_memory_order(key: bytes, order: MemoryOrder) -> bytes:
    """Seal an order."""
    return wrap(key, _PURPOSE, msgspec.msgpack.encode(order))


def open_memory_order(key: bytes, data: bytes, now_us: int) -> MemoryOrder | None:
    """Return the order if its seal holds and it was given just now, else None."""
    body = unwrap(key, _PURPOSE, data)
    if body is None:
        return None
    try:
        order = msgspec.msgpack.decode(body, type=MemoryOrder)
    except msgspec.DecodeError:
        return None
    return order if abs(now_us - order.at_us) <= ORDER_US else None
