"""Keyed seals: keyed BLAKE2b over a body, with the purpose as its personalisation.

Whoever holds the key can make and check a seal.  Ingress, Driver, Policy, Approvals and the executors do; runtimes,
where agent code runs, do not.  The purpose (at most 16 bytes) keeps a seal made for one thing from passing for
another.  Keyed BLAKE2b is a MAC as HMAC-SHA256 is, at half its cost (`benchmarks.seals`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac

SEAL_BYTES = 32


def seal(key: bytes, purpose: str, body: bytes) -> bytes:
    """Return the 32-byte seal of `body` for `purpose`."""
    return hashlib.blake2b(body, key=key, digest_size=SEAL_BYTES, person=purpose.encode()).digest()


def is_sealed(key: bytes, purpose: str, body: bytes, mark: bytes) -> bool:
    """Whether `mark` is the seal of `body` for `purpose`, compared in constant time."""
    return hmac.compare_digest(seal(key, purpose, body), mark)


def wrap(key: bytes, purpose: str, body: bytes) -> bytes:
    """Return the seal followed by the body."""
    return seal(key, purpose, body) + body


def unwrap(key: bytes, purpose: str, data: bytes) -> bytes | None:
    """Return the body of what `wrap` made, or None if the seal does not hold."""
    mark, body = data[:SEAL_BYTES], data[SEAL_BYTES:]
    return body if is_sealed(key, purpose, body, mark) else None


def to_text(data: bytes) -> str:
    """Encode for a JSON field."""
    return base64.urlsafe_b64encode(data).decode()


def from_text(text: str) -> bytes:
    """Decode what `to_text` made; anything else gives bytes that no seal fits."""
    try:
        return base64.urlsafe_b64decode(text.encode())
    except ValueError:
        return b""
