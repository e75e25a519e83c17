"""The seal over an identity: Ingress makes it, and every layer that decides by identity checks it.

It is bound to what the identity may be used for (a `subject`): one run, or one vote about one approval or several.  So
a proof that a run carries is good for that run and its branches, and can neither vote nor begin another run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from airside.stack.canonical import digest
from airside.stack.ids import ApprovalId, RunId, root_of
from airside.stack.security.seals import from_text, is_sealed, seal, to_text
from airside.stack.values import Identity

_PURPOSE = "identity"
_REMEMBERED = 4096


def run_subject(run_id: RunId) -> str:
    """Return the subject of proofs that a run and its branches carry."""
    return f"run:{root_of(run_id)}"


def vote_subject(approval_id: ApprovalId, verdict: str, arguments: bytes) -> str:
    """Return the subject of the proof that comes with one vote."""
    return f"vote:{approval_id}:{verdict}:{digest(arguments)}"


def joint_vote_subject(approval_ids: Sequence[ApprovalId], verdict: str) -> str:
    """Return the subject of the proof that comes with one verdict on several approvals."""
    return f"votes:{digest('|'.join(approval_ids).encode())}:{verdict}"


def _body(encoded: bytes, subject: str) -> bytes:
    return len(encoded).to_bytes(4, "big") + encoded + subject.encode()


def seal_identity(key: bytes, identity: Identity, subject: str) -> str:
    """Return Ingress's proof that `identity` asks for `subject`."""
    return to_text(seal(key, _PURPOSE, _body(msgspec.msgpack.encode(identity), subject)))


class IdentityChecker:
    """Checks proofs, and remembers the latest ones that held, because one identity takes many steps."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: OrderedDict[tuple[bytes, str, str], Identity] = OrderedDict()

    def check(self, encoded: bytes, proof: str, subject: str) -> Identity | None:
        """Return the identity whose msgpack form is `encoded` if `proof` is its seal for `subject`, else None."""
        known = self._known.get((encoded, proof, subject))
        if known is not None:
            return known
        if not is_sealed(self._key, _PURPOSE, _body(encoded, subject), from_text(proof)):
            return None
        try:
            identity = msgspec.msgpack.decode(encoded, type=Identity)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        self._known[(encoded, proof, subject)] = identity
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity
