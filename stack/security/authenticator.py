"""Who is asking: JWTs and API keys, checked against what the server pinned.

A token is the stack's own, or of the issuer whose keys the directory has, both Ed25519; or it names an OIDC issuer of
the directory, and is checked by that one's entry and keys alone (`stack/security/oidc_tokens.py`).  Nothing in a token
chooses how it is checked: algorithm, issuer, audience and key ids are the directory's.  The size is capped before
anything is parsed, repeated claims are refused, and `exp` and `nbf` must be there as whole numbers; `iat`, if it is
there, is not in the future.  A token may be used until it expires, as often as its holder likes: `jti` is not
remembered.
PyJWT checks the signature; what it leaves open (a repeated claim, an audience list, `exp` as text) is closed here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.canonical import write_bounded
from airside.stack.directory import LOCAL_KEY_ID, Directory, Principal, Tenant, lower
from airside.stack.errors import AuthRefused, InvalidConfig, InvalidId, InvalidInput
from airside.stack.ids import parse_principal, parse_tenant
from airside.stack.input.public_keys import public_key
from airside.stack.reasons import ReasonCode
from airside.stack.security.access import Caller, narrowed
from airside.stack.security.issuer_keys import IssuerKeys, Need
from airside.stack.security.key_sets import KeySet
from airside.stack.security.oidc_tokens import OidcClaims, check_oidc_token
from airside.stack.security.tokens import (
    LAST_SECOND,
    MAX_TOKEN_BYTES,
    check_claim_types,
    check_lifetime,
    check_signature,
    read_parts,
    refuse,
)
from airside.stack.values import CLEARANCES, Identity

LOCAL_ISSUER, LOCAL_AUDIENCE = "airside-local", "airside"

_REQUIRED: tuple[tuple[str, type], ...] = (
    ("iss", str),
    ("aud", str),
    ("sub", str),
    ("tenant", str),
    ("exp", int),
    ("nbf", int),
)
_OPTIONAL: tuple[tuple[str, type], ...] = (("iat", int), ("jti", str), ("scope", str))
_LEEWAY_S = 5
_REMEMBERED = 4096
"""Tokens that verified and are not checked again until they expire: a batch uses one many times."""

_KEY_PREFIX = "ask_"


class _Known(NamedTuple):
    """A token that verified: whose it is, until when, and the keys it was checked with, if they may be taken back."""

    caller: Caller
    expires_s: int
    issuer: IssuerKeys | None = None
    kid: str = ""
    keys: KeySet | None = None

    def holds(self, now_s: int) -> bool:
        """Whether it need not be checked again."""
        return self.expires_s > now_s and (self.issuer is None or self.issuer.believed() is self.keys)


class Authenticator:
    """Turns a token or an API key into an `Identity`, or raises `AuthRefused` with one of the auth reason codes."""

    def __init__(self, directory: Directory, local_public_pem: bytes, issuers: Collection[IssuerKeys] = ()) -> None:
        self._directory = directory
        local = public_key(local_public_pem)
        self._keys = {kid: public_key(key.public_pem) for kid, key in directory.keys.items()}
        for kid, key in self._keys.items():
            if key == local:
                raise InvalidConfig(f"directory: keys.{kid}: this is the stack's own key: leave it out, it is pinned")
        self._keys[LOCAL_KEY_ID] = local
        self._api_keys = {
            digest: (tenant, principal)
            for tenant, entry in directory.tenants.items()
            for principal, who in entry.principals.items()
            for digest in who.api_keys
        }
        self.issuers: dict[str, IssuerKeys] = {issuer.entry.issuer: issuer for issuer in issuers}
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def identify(self, credential: Any, now_s: int) -> Identity:
        """Return who holds `credential` (a JWT, or an API key beginning with `ask_`) at `now_s` (UTC seconds)."""
        return self.caller(credential, now_s).identity

    def caller(self, credential: Any, now_s: int) -> Caller:
        """Return who holds a credential, and what it is narrowed to: a token's `scope`, which an API key has not."""
        if not isinstance(credential, str) or not credential:
            raise refuse(ReasonCode.AUTH_MALFORMED, "no token was given")
        if not credential.isascii():
            raise refuse(ReasonCode.AUTH_MALFORMED, "a credential is ASCII")
        if len(credential) > MAX_TOKEN_BYTES:
            raise refuse(ReasonCode.AUTH_MALFORMED, f"{len(credential):,} bytes, over {MAX_TOKEN_BYTES:,}")
        if credential.startswith(_KEY_PREFIX):
            return Caller(self._by_api_key(credential))
        known = self._known.get(credential)
        if known is not None and known.holds(now_s):
            return known.caller
        header, claims = read_parts(credential)
        issuer = self._issuer_of(claims)
        if issuer is None:
            self._check_token(credential, header, claims, now_s)
            known = _Known(Caller(self._by_claims(claims), narrowed(claims.get("scope"))), claims["exp"])
        else:
            said = check_oidc_token(issuer, credential, header, claims, now_s)
            caller = Caller(self._by_oidc_claims(issuer.name, said))  # its scope is the issuer's, and names no areas
            known = _Known(caller, said.expires_s, issuer, header["kid"], issuer.believed())
        self._known[credential] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known.caller

    def needs_keys(self, credential: Any) -> tuple[IssuerKeys, Need] | None:
        """Return of which OIDC issuer keys have to be fetched for `identify` to know them, and how soon; else None."""
        if not self.issuers or not isinstance(credential, str) or len(credential) > MAX_TOKEN_BYTES:
            return None
        known = self._known.get(credential)
        if known is not None:
            issuer, kid = known.issuer, known.kid
        else:
            try:
                header, claims = read_parts(credential)
            except AuthRefused:
                return None
            issuer, kid = self._issuer_of(claims), header.get("kid", "")
            if issuer is None or header.get("alg") not in issuer.entry.algorithms or not isinstance(kid, str):
                return None  # no key makes it good
        need = Need.NONE if issuer is None else issuer.need(kid)
        return None if issuer is None or need is Need.NONE else (issuer, need)

    def _issuer_of(self, claims: Mapping[str, Any]) -> IssuerKeys | None:
        """Return the OIDC issuer whose entry a token is checked by, None for the directory's own keys."""
        named = claims.get("iss")
        return self.issuers.get(named) if isinstance(named, str) else None

    def _by_api_key(self, key: str) -> Identity:
        holder = self._api_keys.get(hash_api_key(key))
        if holder is None:
            raise refuse(ReasonCode.AUTH_UNKNOWN_KEY, "the key's hash is not in the directory")
        tenant, principal = holder
        entry = self._directory.tenants[tenant]
        return _identity(tenant, principal, entry, entry.principals[principal], expires_us=0)

    def _check_token(self, token: str, header: dict[str, Any], claims: dict[str, Any], now_s: int) -> None:
        if header.get("alg") != "EdDSA" or "crit" in header:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, f"algorithm {header.get('alg')!r:.40}; EdDSA is pinned")
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, f"key id {kid!r:.40} is not pinned")
        check_signature(token, key, ["EdDSA"])
        self._check_claims(claims, now_s, local=kid == LOCAL_KEY_ID)

    def _check_claims(self, claims: dict[str, Any], now_s: int, *, local: bool) -> None:
        check_claim_types(claims, _REQUIRED, needed=True)
        check_claim_types(claims, _OPTIONAL, needed=False)
        pinned = (LOCAL_ISSUER, LOCAL_AUDIENCE) if local else (self._directory.issuer, self._directory.audience)
        if (claims["iss"], claims["aud"]) != pinned:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, "issuer or audience is not the pinned one")
        check_lifetime(claims, now_s, _LEEWAY_S)

    def _by_claims(self, claims: dict[str, Any]) -> Identity:
        try:
            tenant, principal = parse_tenant(claims["tenant"]), parse_principal(claims["sub"])
        except InvalidId as error:
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, error.message) from None
        entry = self._directory.tenants.get(tenant)
        if entry is None:
            raise refuse(ReasonCode.TENANT_UNKNOWN, tenant)
        listed = entry.principals.get(principal)
        if listed is None and not entry.open:
            raise refuse(ReasonCode.PRINCIPAL_UNKNOWN, f"{principal} of {tenant}")
        who = listed or _unlisted(entry, claims)
        return _identity(tenant, principal, entry, who, expires_us=claims["exp"] * 1_000_000)

    def _by_oidc_claims(self, issuer: str, said: OidcClaims) -> Identity:
        """Make the identity; no issuer vouches for a principal, listed or not, unless the directory names it there."""
        tenant, principal = said.tenant, said.principal
        entry = self._directory.tenants[tenant]
        listed = entry.principals.get(principal)
        if listed is not None and issuer not in listed.issuers:
            detail = (
                f"{principal} of {tenant} is listed, and not as one of {issuer}'s: its entry may name it in issuers"
            )
            raise refuse(ReasonCode.PRINCIPAL_UNKNOWN, detail)
        if listed is None and issuer not in entry.open_issuers:
            raise refuse(ReasonCode.PRINCIPAL_UNKNOWN, f"{principal} of {tenant}, as {issuer} has it")
        who = listed or Principal(
            roles=sorted(set(said.roles) & set(entry.open_roles)),
            scopes=sorted(set(said.scopes) & set(entry.open_scopes)),
        )
        return _identity(tenant, principal, entry, who, expires_us=said.expires_s * 1_000_000)


def _unlisted(entry: Tenant, claims: dict[str, Any]) -> Principal:
    def within(name: str, allowed: Sequence[str]) -> list[str]:
        given = claims.get(name, [])
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} must be a list of text")
        return sorted(set(given) & set(allowed))

    clearance = claims.get("clearance", "internal")
    if clearance not in CLEARANCES:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"clearance must be one of {list(CLEARANCES)}")
    return Principal(
        roles=within("roles", entry.open_roles), scopes=within("scopes", entry.open_scopes), clearance=clearance
    )


def _identity(tenant: str, principal: str, entry: Tenant, who: Principal, *, expires_us: int) -> Identity:
    return Identity(
        principal=parse_principal(principal),
        tenant=parse_tenant(tenant),
        roles=tuple(who.roles),
        scopes=tuple(who.scopes),
        clearance=lower(who.clearance, entry.clearance),
        attributes={name: tuple(values) for name, values in who.attributes.items()},
        limits=entry.limits_of(who),
        expires_us=expires_us,
    )


def hash_api_key(key: str) -> str:
    """Return what the directory keeps of an API key; it has 256 random bits, so a plain hash is enough."""
    return "sha256:" + hashlib.sha256(key.encode(errors="replace")).hexdigest()


def new_api_key() -> str:
    """Return a new API key: show it once, keep its hash."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


def issue_token(
    private_pem: bytes,
    *,
    tenant: str,
    principal: str,
    now_s: int,
    ttl_s: int = 3600,
    issuer: str = LOCAL_ISSUER,
    audience: str = LOCAL_AUDIENCE,
    kid: str = LOCAL_KEY_ID,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Sign a token with the stack's local key, for use on the machine that has it.

    Raises `InvalidInput` for a life that is no whole number of seconds from 1 on, and for claims that are no JSON;
    they do not override what the token says by itself.
    """
    if type(ttl_s) is not int or not 1 <= ttl_s < LAST_SECOND - now_s:
        raise InvalidInput(f"token: a life of {ttl_s!r:.40} s: give a whole number of seconds, at least 1")
    key = serialization.load_pem_private_key(private_pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidConfig("the issuer's key is not an Ed25519 key")
    said = {
        "iss": issuer,
        "aud": audience,
        "sub": parse_principal(principal),
        "tenant": parse_tenant(tenant),
        "nbf": now_s,
        "exp": now_s + ttl_s,
    }
    write_bounded(dict(claims or {}), max_bytes=MAX_TOKEN_BYTES, where="token claims")
    return jwt.encode({**(claims or {}), **said}, key, algorithm="EdDSA", headers={"kid": kid})
