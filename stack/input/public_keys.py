"""Public keys that tokens are checked with: one Ed25519 key in PEM, of which only its owner can sign.

A key that is a point of small order verifies signatures anybody can make; it, other ways to write a point, and what is
no point of the curve are refused, as RFC 8032 allows and libraries leave to their users.
"""

from __future__ import annotations

import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from airside.stack.errors import InvalidConfig

_ONE_PEM = re.compile(r"\s*-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]{1,4000}-----END PUBLIC KEY-----\s*")
_PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_ORDER_EIGHT = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL = frozenset({0, 1, _PRIME - 1, _ORDER_EIGHT, _PRIME - _ORDER_EIGHT})
"""The y of the eight points whose order divides eight."""


def public_key(pem: str | bytes) -> Ed25519PublicKey:
    """Return the key of a PEM; raise `InvalidConfig` for another kind of key, several, or one that binds nobody."""
    text = pem.decode("ascii", "replace") if isinstance(pem, bytes) else pem
    if "PRIVATE KEY" in text:
        raise InvalidConfig(
            "this is a private key: whoever can read the file can sign; make another, give its public half"
        )
    if text.count("-----BEGIN") > 1:
        raise InvalidConfig("there are several PEM blocks: give each key an id of its own")
    if _ONE_PEM.fullmatch(text) is None:
        raise InvalidConfig(
            "not a PEM public key: give -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, and nothing else"
        )
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidConfig(f"not a PEM public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidConfig(f"{type(key).__name__} is not an Ed25519 key")
    problem = problem_with_point(key.public_bytes_raw())
    if problem:
        raise InvalidConfig(f"an Ed25519 key that cannot be used: {problem}")
    return key


def problem_with_point(raw: bytes) -> str:
    """Return why the point of an Ed25519 key binds nobody, "" if it does."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _PRIME:
        return "its point is not written in the one canonical way"
    if y in _SMALL:
        return "its point has a small order, so that anybody can sign for it"
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    if pow(square, (_PRIME - 1) // 2, _PRIME) != 1:
        return "it is no point of the curve"
    return ""
