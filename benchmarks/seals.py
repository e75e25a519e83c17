"""What a seal costs: keyed BLAKE2b beside HMAC-SHA256 and Ed25519, each made and checked over a body of 300 bytes.

    python -m benchmarks.seals

Microseconds an operation, the median of nine rounds.  Not measured: encoding the body, which is the same for all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import timeit
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.sealing import is_sealed, seal
from benchmarks.measure import last_line, machine, median

BODY_BYTES = 300
"""About a grant."""

ROUNDS = 9


def microseconds(operation: Callable[[], object], calls: int = 2_000) -> float:
    """Return the median time of one call."""
    operation()
    return round(median(timeit.repeat(operation, number=calls, repeat=ROUNDS)) / calls * 1e6, 2)


def main() -> None:
    """Measure, and print the figures as the last line."""
    key, body = secrets.token_bytes(32), secrets.token_bytes(BODY_BYTES)
    mark, mac = seal(key, "grant", body), hmac.digest(key, body, "sha256")
    private = Ed25519PrivateKey.generate()
    public, signature = private.public_key(), private.sign(body)
    print(machine())
    last_line(
        {
            "body_bytes": BODY_BYTES,
            "blake2b_make_us": microseconds(lambda: seal(key, "grant", body)),
            "blake2b_check_us": microseconds(lambda: is_sealed(key, "grant", body, mark)),
            "hmac_sha256_make_us": microseconds(lambda: hmac.new(key, body, hashlib.sha256).digest()),
            "hmac_sha256_digest_make_us": microseconds(lambda: hmac.digest(key, body, "sha256")),
            "hmac_sha256_check_us": microseconds(lambda: hmac.compare_digest(hmac.digest(key, body, "sha256"), mac)),
            "ed25519_make_us": microseconds(lambda: private.sign(body), calls=500),
            "ed25519_check_us": microseconds(lambda: public.verify(signature, body), calls=500),
        }
    )


if __name__ == "__main__":
    main()
