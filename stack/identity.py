"""The seal over an identity: Ingress makes it, and every layer that decides by identity checks it."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from airside.stack.sealing import from_text, is_sealed, seal, to_text
from airside.stack.values import Identity

_PURPOSE = "identity"
_REMEMBERED = 4096


def seal_identity(key: bytes, identity: Identity) -> str:
    """Return Ingress's proof of `identity`."""
    return to_text(seal(key, _PURPOSE, msgspec.msgpack.encode(identity)))


class IdentityChecker:
    """Checks proofs, and remembers the latest ones that held, because one identity takes many steps."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: OrderedDict[tuple[bytes, str], Identity] = OrderedDict()

    def check(self, encoded: bytes, proof: str) -> Identity | None:
        """Return the identity whose msgpack form is `encoded` if `proof` is its seal, else None."""
        known = self._known.get((encoded, proof))
        if known is not None:
            return known
        if not is_sealed(self._key, _PURPOSE, encoded, from_text(proof)):
            return None
        try:
            identity = msgspec.msgpack.decode(encoded, type=Identity)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        self._known[(encoded, proof)] = identity
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity
