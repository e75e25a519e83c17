"""The stack's secrets: files in its state directory that only its user may read, made at the first start."""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.errors import Failed, InvalidConfig
from airside.stack.webhooks import secret_text

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyRing:
    """`seal` signs grants, identities and receipts; `chain` links the journal; `issuer_pem` signs local tokens.

    `webhook` is the text of the secret that receivers of webhooks check signatures with; `blobs` encrypts what models
    are told.
    """

    seal: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    issuer_pem: bytes = field(repr=False)
    webhook: bytes = field(repr=False)
    blobs: bytes = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> KeyRing:
        """Read the keys in `folder`, making what is missing; raise `InvalidConfig` if others could read them.

        Raises `Failed` for one that cannot be written, of which nothing is left.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(
            seal=_file(folder / "seal.key", secrets.token_bytes(_KEY_BYTES)),
            chain=_file(folder / "chain.key", secrets.token_bytes(_KEY_BYTES)),
            issuer_pem=_file(folder / "issuer.pem", _new_issuer()),
            webhook=_file(folder / "webhook.key", secret_text(secrets.token_bytes(32)).encode()),
            blobs=_file(folder / "blobs.key", secrets.token_bytes(_KEY_BYTES)),
        )

    @property
    def issuer_public_pem(self) -> bytes:
        """The public half of the local issuer."""
        key = serialization.load_pem_private_key(self.issuer_pem, password=None)
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def _new_issuer() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_chain_key(folder: Path) -> bytes:
    """Read the key that links the journal, making none; raise `InvalidConfig` if it is not there or not whole."""
    path = folder / "chain.key"
    if not path.is_file():
        raise InvalidConfig(f"{path}: the key of the journal's chain is not there: copy keys/ with the journal")
    return _read(path, _KEY_BYTES)


def read_blob_key(folder: Path) -> bytes:
    """Read the key of blobs, making none; raise `InvalidConfig` if it is not there or not whole."""
    path = folder / "blobs.key"
    if not path.is_file():
        raise InvalidConfig(f"{path}: the key of what models were told is not there: copy keys/ with blobs/")
    return _read(path, _KEY_BYTES)


def gateway_key(folder: Path) -> bytes:
    """Return the key that the gateway seals what clients bring back with, making it if it is not there.

    It is of the stack and not of a process, so that a gateway started anew takes what one before gave out.  Raises
    `InvalidConfig` where the stack's keys are not: a key made elsewhere would be nobody else's.
    """
    if not folder.is_dir():
        raise InvalidConfig(f"{folder}: the stack's keys are not here: name its state directory")
    return _file(folder / "gateway.key", secrets.token_bytes(_KEY_BYTES))


def _file(path: Path, fresh: bytes) -> bytes:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path, len(fresh))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # else the next start finds a key that is not whole
        full = f"the disk of {path.parent} is full: make room. " if error.errno == errno.ENOSPC else ""
        raise Failed(f"{full}{path}: it cannot be written: {error.strerror}") from None
    return fresh


def _read(path: Path, size: int) -> bytes:
    if path.stat().st_mode & 0o077:
        raise InvalidConfig(f"{path}: others can read this key; run chmod 600 on it")
    data = path.read_bytes()
    if len(data) != size and not data.endswith(b"-----END PRIVATE KEY-----\n"):
        raise InvalidConfig(f"{path}: not a whole key; remove it and start again to make another")
    return data
