"""The context of a call, for tools that are called directly, and a certificate for servers they meet."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId
from airside.tools.tool import ToolContext


def context(key: str = "run_1:1", *, tenant: str = "acme", attempt: int = 1, deadline_s: float = 30.0) -> ToolContext:
    """Return the context of a call."""
    fields: dict[str, Any] = {"tenant": TenantId(tenant), "principal": PrincipalId("ann"), "run_id": RunId("run_1")}
    fields |= {"step": 1, "attempt": attempt, "idempotency_key": EffectKey(key), "approval_id": ""}
    return ToolContext(**fields, deadline_s=deadline_s)


def certificate(folder: Path) -> Path:
    """Write a key and a certificate for `localhost`, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    began = datetime.datetime(2020, 1, 1)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)
    (folder / "server.pem").write_bytes(pem)
    return folder / "server.pem"
