"""What models were told, kept beside the journal: its entries name it, and do not hold it.

A blob is named by the digest of its bytes as they are kept, so whoever checks the journal checks what it names, too,
without being able to read it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from airside.stack.canonical import digest
from airside.stack.contracts.models import Prompt
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.models.events import ModelAsked, ModelEvent


class Blobs(Protocol):
    """Where blobs are kept.

    Both raise `LayerUnavailable` where a disk fails.  `get` raises `InvalidInput` for one that is not there, is
    damaged, or is another tenant's.
    """

    async def put(self, tenant: TenantId, data: bytes) -> str:
        """Keep data; return its name once it is durable.  The same of one tenant is kept once, under one name."""

    async def get(self, tenant: TenantId, name: str) -> bytes:
        """Return the data of a name."""


class InMemoryBlobs:
    """Blobs in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[TenantId, str], bytes] = {}

    async def put(self, tenant: TenantId, data: bytes) -> str:
        """Keep data."""
        name = digest(tenant.encode() + b"\0" + data)
        self.kept[tenant, name] = data
        return name

    async def get(self, tenant: TenantId, name: str) -> bytes:
        """Return the data of a name."""
        found = self.kept.get((tenant, name))
        if found is None:
            raise InvalidInput(f"{tenant} has no blob {name:.80}")
        return found


def prompt_of_blob(data: bytes) -> Prompt:
    """Return a prompt that was kept; raise `InvalidInput` for what is none."""
    try:
        return msgspec.msgpack.decode(data, type=Prompt)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"a blob holds no prompt: {error}") from None


def names_in(event: ModelEvent) -> list[str]:
    """Return the blobs that an event names."""
    return [event.prompt_blob] if isinstance(event, ModelAsked) and event.prompt_blob else []
