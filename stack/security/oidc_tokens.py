"""Tokens of an OIDC issuer: bearer tokens for this stack, checked with the issuer's own keys, by its entry alone.

The key is that of the issuer and the key id; `jku`, `x5u`, `jwk` and `x5c` of a header are not read.  What is not a
bearer token is refused, if it says so: another `typ`, a `crit` header, or `cnf`, which binds it to a key of its holder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airside.stack.errors import InvalidId
from airside.stack.ids import PrincipalId, TenantId, parse_principal, parse_tenant
from airside.stack.issuers import OidcIssuer
from airside.stack.reasons import ReasonCode
from airside.stack.security.issuer_keys import IssuerKeys
from airside.stack.security.tokens import check_claim_types, check_lifetime, check_signature, refuse

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""`typ` of what may be a bearer token (RFC 7519, RFC 9068), in lower case; logout tokens and proofs have others."""

_MAX_AUDIENCES = 16
_WORDS = ("scope", "scp")
"""Claims that are several values in one text, with spaces between them (RFC 8693, RFC 9068)."""


class OidcClaims(NamedTuple):
    """Whom a token is of; `roles` and `scopes` are what it says, which counts for those that are not listed alone."""

    tenant: TenantId
    principal: PrincipalId
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    expires_s: int


def check_oidc_token(
    issuer: IssuerKeys, token: str, header: Mapping[str, Any], claims: Mapping[str, Any], now_s: int
) -> OidcClaims:
    """Return whom a token of this issuer is of, or raise `AuthRefused`."""
    entry = issuer.entry
    _check_header(entry, header)
    check_signature(token, _key(issuer, header), [header["alg"]])
    check_claim_types(claims, (("iss", str), ("exp", int)), needed=True)
    check_claim_types(claims, (("nbf", int), ("iat", int), ("jti", str)), needed=False)
    if claims["iss"] != entry.issuer:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, "issuer is not the pinned one")
    _check_audience(entry, claims.get("aud"))
    check_lifetime(claims, now_s, entry.leeway_s)
    if "cnf" in claims:
        raise refuse(ReasonCode.AUTH_FAILED, "it is bound to a key of its holder (cnf), and is no bearer token")
    for name, wanted in entry.required.items():
        _check_required(name, claims.get(name), wanted)
    return OidcClaims(
        _tenant(entry, claims),
        _principal(entry, claims),
        _names(claims, entry.roles_claim, entry.role_names),
        _names(claims, entry.scopes_claim, entry.scope_names),
        claims["exp"],
    )


def _check_header(entry: OidcIssuer, header: Mapping[str, Any]) -> None:
    if header.get("alg") not in entry.algorithms or "crit" in header:
        pinned = ", ".join(entry.algorithms)
        raise refuse(
            ReasonCode.AUTH_UNTRUSTED, f"algorithm {header.get('alg')!r:.40}; {pinned} is pinned, without crit"
        )
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, f"typ {kind!r:.40} is not of a bearer token")


def _key(issuer: IssuerKeys, header: Mapping[str, Any]) -> Any:
    keys = issuer.believed()
    if keys is None:
        # Why not is for the log: it may name hosts and files, and whoever asks has shown nothing yet.
        raise refuse(ReasonCode.AUTH_KEYS_UNAVAILABLE, f"issuer {issuer.name}: the log of ingress says why")
    kid = header.get("kid")
    found = keys.keys.get(kid) if isinstance(kid, str) else None
    if found is None:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, f"key id {kid!r:.40} is none of issuer {issuer.name}")
    if header["alg"] not in found.algorithms:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, f"key {kid!r:.40} of issuer {issuer.name} is not for {header['alg']}")
    return found.key


def _check_audience(entry: OidcIssuer, given: Any) -> None:
    """A token may be for others too only where the entry names them: each could pass it on."""
    named = [given] if isinstance(given, str) else given
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "aud must be str, or a list of str")
    if entry.audience not in named:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, "issuer or audience is not the pinned one")
    others = set(named) - {entry.audience, *entry.other_audiences}
    if others or len(named) > _MAX_AUDIENCES:
        shown = ", ".join(f"{each!r:.60}" for each in sorted(others)[:3])
        raise refuse(ReasonCode.AUTH_UNTRUSTED, f"it is also for {shown}: name those in other_audiences, if it may be")


def _check_required(name: str, given: Any, wanted: Any) -> None:
    """Refuse a claim that is not what is required, nor a list that has it; numbers and true are not the same."""
    said = given.split(" ") if name in _WORDS and isinstance(given, str) else given
    values = said if isinstance(said, list) else [said]
    possible = wanted if isinstance(wanted, list) else [wanted]
    if not any(type(each) is type(one) and each == one for each in values for one in possible):
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} is not what the issuer's entry requires")


def _tenant(entry: OidcIssuer, claims: Mapping[str, Any]) -> TenantId:
    """The entry's tenant, or the one a token names of those that it may."""
    if entry.tenant_claim is None:
        return parse_tenant(entry.tenant)  # which one there is where there is no claim
    named = claims.get(entry.tenant_claim)
    if not isinstance(named, str):
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{entry.tenant_claim} must be str")
    if named not in entry.tenants:
        raise refuse(ReasonCode.AUTH_UNTRUSTED, f"the issuer does not speak for tenant {named!r:.80}")
    return parse_tenant(named)


def _principal(entry: OidcIssuer, claims: Mapping[str, Any]) -> PrincipalId:
    name = entry.principal_claim
    if name == "email" and claims.get("email_verified") is not True:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "email_verified must be true where email says who it is")
    try:
        return parse_principal(claims.get(name))
    except InvalidId as error:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name}: {error.message}") from None


def _names(claims: Mapping[str, Any], path: Sequence[str], called: Mapping[str, str]) -> tuple[str, ...]:
    """Return the roles or scopes that stand at a path of claims, by what they are called here; () of none."""
    found: Any = claims if path else None
    for part in path:
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return ()
    if found is None:
        return ()
    given = found.split() if isinstance(found, str) and path[-1] in _WORDS else found
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{'.'.join(path)} must be a list of text")
    return tuple(called[each] for each in given if each in called) if called else tuple(given)
