"""`stack.memory`: what operators and keepers do with a stack's memory."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from airside.actors.client.connection import Connection
from airside.actors.client.display.listed import Hits, RecordList
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import KEEP, MEMORY_ORDER, KeeperRequest
from airside.memory.records import Record
from airside.memory.storage.erasure import Erasure, What
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.calling import explain_misuse_of_methods
from airside.stack.contracts.memory import Candidate, LearnReply, Only, Recalled, RecallReply, RecallRequest
from airside.stack.errors import InvalidInput, MemoryFailed, Refused
from airside.stack.ids import parse_tenant
from airside.stack.security.keyring import KeyRing
from airside.stack.security.memory_orders import MemoryAction, MemoryAnswer, MemoryOrder, seal_memory_order
from airside.stack.values import Clearance, Trust

RecordKind = TypeVar("RecordKind")
_ACTIONS: dict[What, MemoryAction] = {"record": "erase_record", "subject": "erase_subject", "tenant": "erase_tenant"}
MAX_IMPORT_BYTES = 512 * 1024 * 1024


@explain_misuse_of_methods
class MemoryClient:
    """Made by `Stack.memory`.

    Most methods need the stack's keys.  Those that take a `token` may be called with that of a principal which holds
    the role `memory_keeper`, for its own tenant.  They raise `Misuse` without either, `Refused` if the token does not
    do, `MemoryFailed` if memory could not, and `LayerUnavailable` if it cannot be reached.
    """

    def __init__(self, connection: Connection, keys: Callable[[], KeyRing]) -> None:
        self._connection = connection
        self._keys = keys

    def remember(self, candidate: Candidate) -> LearnReply:
        """Offer a record (`airside.stack.contracts.memory.Candidate`); `kept` says whether memory holds it now, `code`
        why not.

        Say `trust="high"` for what you know; the default is that of a stranger's text.
        """
        return self._order("remember", candidate.tenant, LearnReply, candidate=candidate)

    def search(
        self,
        query: str,
        *,
        tenant: str,
        top_k: int = 4,
        min_score: float | None = None,
        clearance: Clearance = "restricted",
    ) -> tuple[Recalled, ...]:
        """Return what a run with this clearance would recall, best first, each with its scores."""
        request = RecallRequest(
            tenant=parse_tenant(tenant), query=query, clearance=clearance, top_k=top_k, min_score=min_score
        )
        reply = self._order("search", tenant, RecallReply, request=request)
        if reply.error:
            raise MemoryFailed(reply.error)
        return Hits(reply.records)

    def records(self, *, tenant: str, token: str = "") -> list[Record]:
        """Return all that is kept, also what is superseded, quarantined or expired and not yet swept."""
        return RecordList(self._order("records", tenant, list[Record], token=token))

    def pin(self, record_id: str, *, tenant: str, pinned: bool = True, token: str = "") -> bool:
        """Let a record stay for ever, or a pinned one end as its kind does from now; return whether there is one."""
        return self._order("pin" if pinned else "unpin", tenant, bool, target=record_id, token=token)

    def quarantine(self, record_id: str, *, tenant: str, release: bool = False, token: str = "") -> bool:
        """Keep a live record from being recalled, or release a quarantined one; return whether there is one."""
        return self._order("release" if release else "quarantine", tenant, bool, target=record_id, token=token)

    def erase(
        self,
        *,
        tenant: str,
        record: str = "",
        subject: str = "",
        all: bool = False,
        only: Only = "",
        keep: Sequence[str] = (),
        dry_run: bool = False,
        token: str = "",
    ) -> ErasureReceipt:
        """Erase one record, all about one subject, or all of a tenant, and what derives from that.

        A subject is compared without regard to case, space and composition.  What derives from a record is what runs
        said that had been shown it, or what derives from it: all of that goes, whatever its words, but with
        `only="repeats"` what has a name, number or phrase of it, with `only="own"` nothing; and the records stay whose
        ids `keep` names.  With `dry_run` the receipt says what would go, and why.

        It is in no result from now on, and in no file, old version or cache when the receipt is there.  The journal
        keeps what runs said: it is the audit log.  Raises `InvalidInput` unless exactly one of the three is said, or
        for `only` and `keep` with `all`; `MemoryFailed` for a record to keep that does not derive from what goes.
        """
        if (bool(record), bool(subject), all).count(True) != 1:
            raise InvalidInput("erase: say one of record, subject and all=True")
        if isinstance(keep, str):
            raise InvalidInput(f"erase: keep {keep!r:.80}: give a list of ids")
        what: What = "record" if record else "subject" if subject else "tenant"
        order = Erasure(
            tenant=parse_tenant(tenant), what=what, target=record or subject, only=only, keep=tuple(keep)
        ).checked()
        fields: dict[str, Any] = {"target": order.target, "only": order.only, "keep": order.keep, "dry_run": dry_run}
        return self._order(_ACTIONS[what], tenant, ErasureReceipt, token=token, **fields)

    def export(self, path: str | Path, *, tenant: str) -> int:
        """Write all that is kept to a Parquet file; return its size in bytes."""
        if Path(path).is_dir() or not Path(path).parent.is_dir():
            raise InvalidInput(f"export: {path}: name a file in a folder that is there")
        return Path(path).write_bytes(self._order("export", tenant, bytes))

    def import_from(self, path: str | Path, *, tenant: str, trust: Trust = "medium") -> dict[str, int]:
        """Offer the live records of a file that `export` wrote; return how many had which code.

        None is trusted more than `trust`.  Raises `InvalidInput` for a file that is not there or too large, and
        `MemoryFailed` for one that `export` would not write, before anything is kept.
        """
        file = Path(path)
        if not file.is_file() or file.stat().st_size > MAX_IMPORT_BYTES:
            raise InvalidInput(f"import: {file} is no file, or larger than {MAX_IMPORT_BYTES // 2**20} MiB")
        return self._order("import", tenant, dict[str, int], data=file.read_bytes(), trust=trust)

    def reembed(self, *, tenant: str) -> int:
        """Embed what another embedder embedded, and wait for it; return how many records that were."""
        return self._order("reembed", tenant, int)

    def sweep(self) -> int:
        """Drop what has expired, of every tenant; return how many records that were."""
        return self._order("sweep", "all", int)

    def _order(
        self, action: MemoryAction, tenant: str, kind: type[RecordKind], *, token: str = "", **fields: Any
    ) -> RecordKind:
        if token:
            answer = self._connection.ask(KEEP, KeeperRequest(token, action, str(tenant), **fields))
        else:
            by = f"operator-{getpass.getuser()}"
            order = MemoryOrder(
                action=action, tenant=str(tenant), by=by, at_us=now_us(), nonce=secrets.token_bytes(16), **fields
            )
            try:
                msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=MemoryOrder)
            except (ValueError, TypeError, OverflowError) as error:
                raise InvalidInput(f"{action}: {error}") from None
            answer = self._connection.ask(MEMORY_ORDER, seal_memory_order(self._keys().seal, order))
        told = msgspec.msgpack.decode(answer, type=MemoryAnswer)
        if told.problem:
            raise (Refused if token else MemoryFailed)(f"{action}: {told.problem}")
        return msgspec.msgpack.decode(told.data, type=kind)
