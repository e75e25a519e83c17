"""An OIDC issuer on loopback: it signs, rotates and takes back keys, and is away or answers badly as it is told."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AUDIENCE = "airside"
DISCOVERY, KEYS = "/realms/shop/.well-known/openid-configuration", "/realms/shop/certs"
_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


_making = threading.Lock()


def private_key(algorithm: str, number: int = 0) -> Any:
    """Return the key of this number for an algorithm, the same in all of a process: RSA keys take long to make."""
    with _making:  # the issuer's threads and the test ask at the same time, and are to get one key
        return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.from_private_bytes(bytes([number + 100]) * 32)
    return ec.generate_private_key(_CURVES[algorithm]())


def jwk_of(key: Any, kid: str, algorithm: str, **more: Any) -> dict[str, Any]:
    """Return the public half of a key as issuers publish it; None removes a member."""
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    jwk = {**public, "kid": kid, "use": "sig", "alg": algorithm, **more}
    return {name: value for name, value in jwk.items() if value is not None}


def part(value: Any) -> str:
    """Encode one part of a token; bytes go in as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, claims: Any, key: Any, algorithm: str) -> str:
    """Return a token whose signature holds for this key and algorithm, whatever its header says."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(jwt.get_algorithm_by_name(algorithm).sign(text.encode(), key))}"


@dataclass
class Signer:
    """Signs as an issuer does: with the key `kid`, of this algorithm."""

    issuer: str
    kid: str = "k1"
    algorithm: str = "RS256"
    number: int = 0

    @property
    def key(self) -> Any:
        """Its private key."""
        return private_key(self.algorithm, self.number)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Return its public key."""
        return jwk_of(self.key, self.kid, self.algorithm, **more)

    def claims(self, now_s: int | None = None, **changed: Any) -> dict[str, Any]:
        """Return what a token says; None removes a claim."""
        now = int(time.time()) if now_s is None else now_s
        said = {"iss": self.issuer, "aud": AUDIENCE, "sub": "ana", "iat": now - 5, "exp": now + 300, **changed}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, now_s: int | None = None, header: Mapping[str, Any] | None = None, **changed: Any) -> str:
        """Return a token."""
        head = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **(header or {})}
        return signed(head, self.claims(now_s, **changed), self.key, self.algorithm)


@dataclass
class LocalIssuer:
    """What the issuer publishes and how it answers; `asked` are the paths of the requests that came.

    `answers` takes the place of what it would answer to a path: a status, the bytes of a body, or the location of a
    redirect.  While `open` is not set, nothing is answered; `drip` sends a byte, and then another, for ever.
    """

    url: str = ""
    signers: dict[str, Signer] = field(default_factory=dict)
    answers: dict[str, int | bytes | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    drip: bool = False

    def publish(self, *signers: Signer) -> None:
        """Have these keys and no others."""
        self.signers = {each.kid: each for each in signers}

    def signer(self, kid: str = "k1", algorithm: str = "RS256", number: int = 0) -> Signer:
        """Return a signer of this issuer, whether or not its key is published."""
        return Signer(self.url, kid, algorithm, number)

    def answer(self, path: str) -> int | bytes | str:
        """Return what is answered to a path."""
        if path in self.answers:
            return self.answers[path]
        if path == DISCOVERY:
            return json.dumps({"issuer": self.url, "jwks_uri": self.url.removesuffix("/realms/shop") + KEYS}).encode()
        return json.dumps({"keys": [each.jwk() for each in self.signers.values()]}).encode() if path == KEYS else 404


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """Return a server's context with a certificate of this host, and the file of who vouches for it: itself."""
    key, name = private_key("ES256", 50), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / f"{host}.pem", folder / f"{host}.key"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context, path


@contextmanager
def an_issuer(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[LocalIssuer]:
    """Run an issuer, which publishes one RSA key; with `tls`, its URL is https of the host."""
    issuer = LocalIssuer()
    issuer.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            while not issuer.open.wait(0.02):
                if issuer.over.is_set():
                    return
            answer = issuer.answer(self.path)
            body = answer if isinstance(answer, bytes) else b"{}"
            self.send_response(answer if isinstance(answer, int) else 302 if isinstance(answer, str) else 200)
            if isinstance(answer, str):
                self.send_header("location", answer)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            while issuer.drip and not issuer.over.wait(0.02):
                self.wfile.write(b" ")
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing of who hung up."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    issuer.url = f"{'https' if tls else 'http'}://{host}:{server.server_address[1]}/realms/shop"
    issuer.publish(issuer.signer())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
