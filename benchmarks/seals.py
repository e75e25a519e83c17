"""What a seal costs: keyed BLAKE2b beside HMAC-SHA256 and Ed25519, each made and checked over a body of 300 bytes.

    python -m benchmarks.seals

Microseconds an operation, the median of nine rounds.  `ed25519_batch_..` signs the hashes of 32 bodies at once, and
counts a body's part: of the check, that is if all of a batch come to one place, which checks the signature once.
`gate_decide_us` is one decision of the gate with all it does, one seal made and an identity's checked among it.  Not
measured: encoding the body, which is the same for all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import timeit
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.contracts.gate import GateRequest
from airside.stack.ids import Buffered, PrincipalId, TenantId, mint_executor, mint_issuer, mint_run
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.security.seals import is_sealed, seal
from airside.stack.values import Identity, Limits
from benchmarks.measure import last_line, machine, median

POLICY = """
version: v1
rules:
  - {id: small, outcome: allow, when: {tool: [pay], arguments: [{path: cents, op: le, value: 5000}]}}
"""
BODY_BYTES = 300
"""About a grant."""

BATCH = 32
ROUNDS = 9


def microseconds(operation: Callable[[], object], calls: int = 2_000) -> float:
    """Return the median time of one call."""
    operation()
    return round(median(timeit.repeat(operation, number=calls, repeat=ROUNDS)) / calls * 1e6, 2)


def batched(private: Ed25519PrivateKey) -> dict[str, float]:
    """Return what a body's part of a signature over many costs."""
    bodies = [secrets.token_bytes(BODY_BYTES) for _ in range(BATCH)]
    public = private.public_key()

    def hashes() -> bytes:
        return b"".join(hashlib.sha256(body).digest() for body in bodies)

    signature = private.sign(hashes())
    return {
        "ed25519_batch_make_us": round(microseconds(lambda: private.sign(hashes()), calls=200) / BATCH, 2),
        "ed25519_batch_check_us": round(microseconds(lambda: public.verify(signature, hashes()), calls=200) / BATCH, 2),
    }


def requested(who: Identity, key: bytes, tool: str, arguments: bytes) -> GateRequest:
    """Return the request of a run's first call, as the gate is sent it."""
    run_id = mint_run()
    return GateRequest(
        identity=msgspec.msgpack.encode(who),
        proof=seal_identity(key, who, run_subject(run_id)),
        run_id=run_id,
        step=1,
        attempt=1,
        epoch=1,
        tool=tool,
        arguments=arguments,
        labels=(),
        remaining=Limits(),
        executor=mint_executor(),
    )


def gate_us() -> float:
    """Return what one decision of the gate costs."""
    schema = {"type": "object", "properties": {"to": {"type": "string"}, "cents": {"type": "integer"}}}
    spec = ToolSpec.build(name="pay", effect="external", parameters=schema)
    key, who = secrets.token_bytes(32), Identity(principal=PrincipalId("a"), tenant=TenantId("t"))
    gate = Gate(
        bundle=load_bundle(POLICY),
        tools=[spec],
        seal_key=key,
        now_us=lambda: 1,
        random=Buffered(),
        issuer=mint_issuer(),
    )
    request = requested(who, key, "pay", b'{"cents":500,"to":"kim"}')
    assert gate.decide(request).grant
    return microseconds(lambda: gate.decide(request))


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
            **batched(private),
            "gate_decide_us": gate_us(),
        }
    )


if __name__ == "__main__":
    main()
