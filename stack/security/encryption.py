"""Encryption of what is kept of a tenant: AES-256-GCM, under a key of each tenant that is derived from the stack's.

Equal texts of one tenant encrypt alike, so that they are kept once; those of two tenants have nothing in common.  The
nonce is a keyed hash of the text, which no other text of the tenant has.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId

_NONCE_BYTES = 12


class TenantCipher:
    """Encrypts and decrypts for tenants."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, tenant: TenantId, data: bytes) -> bytes:
        """Return the nonce and what it encrypts to, which is the same for the same data."""
        nonce = hashlib.blake2b(data, key=self._derived(tenant, "nonce"), digest_size=_NONCE_BYTES).digest()
        return nonce + AESGCM(self._derived(tenant, "encrypt")).encrypt(nonce, data, tenant.encode())

    def decrypt(self, tenant: TenantId, data: bytes) -> bytes:
        """Return what was encrypted; raise `InvalidInput` for anything else, and what is another tenant's."""
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        try:
            return AESGCM(self._derived(tenant, "encrypt")).decrypt(nonce, sealed, tenant.encode())
        except (InvalidTag, ValueError):
            raise InvalidInput(f"it was not encrypted for {tenant} with this key") from None

    def _derived(self, tenant: TenantId, purpose: str) -> bytes:
        return hashlib.blake2b(tenant.encode(), key=self._key, person=purpose.encode(), digest_size=32).digest()
