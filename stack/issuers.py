"""OIDC issuers as the directory pins them: whose tokens are believed, how they are checked, and for whom they speak.

Nothing in a token adds to an entry: not an algorithm, not a key, not a tenant.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from airside.stack.input.models import Explained
from airside.stack.input.sentences import wrong_at

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of public keys alone: who can check a signature cannot make one.  EdDSA is over Ed25519."""

DEFAULT_REFRESH_S = 300
"""Issuers have a key signed with for days, and take one back once in years: then minutes matter."""

DEFAULT_KEYS_MAX_AGE_S = 3600
"""An issuer that is away for longer gives no tokens either, and those it gave have mostly expired."""

DEFAULT_LEEWAY_S = 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_MAX_URL_CHARS = 2_000


def issuer_name(name: str) -> str:
    """Return the name of an entry; raise `ValueError` for what is none."""
    if _NAME.fullmatch(name) is None:
        raise ValueError("an issuer's name is up to 63 ASCII letters, digits and _.-: call it something else")
    return name


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this very machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(text: str) -> SplitResult:
    if len(text) > _MAX_URL_CHARS or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"that is no URL: write up to {_MAX_URL_CHARS:,} printable ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"that is no URL: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError("an absolute URL is needed: write https://host/path")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("https:// is needed: over http:// anybody on the way could give keys (only of loopback it is)")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials in the URL are not sent: leave them out")
    return parts


def _issuer_url(text: str) -> str:
    parts = _url(text)
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("an issuer's URL has no query and no fragment: write it as its tokens have it in iss")
    return text


def _keys_url(text: str) -> str:
    if "#" in text:
        raise ValueError("the URL of keys has no fragment: leave # and what follows out")
    _url(text)
    return text


def _absolute(text: str) -> str:
    if not Path(text).is_absolute():
        raise ValueError("an absolute path is needed: the stack's processes run in folders of their own")
    return text


def _path(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        raise ValueError("the name of a claim is needed, or the path to it: write roles, or [realm_access, roles]")
    return value


def _claim_value(value: Any) -> Any:
    texts = isinstance(value, list) and value and all(isinstance(each, str) for each in value)
    if not texts and type(value) not in (str, int, bool):
        raise ValueError("a text, a whole number, true or false is needed, or a list of the texts it may be")
    return value


ClaimName = Annotated[str, Field(min_length=1, max_length=200)]
ClaimPath = Annotated[list[str], BeforeValidator(_path)]
FilePath = Annotated[str, AfterValidator(_absolute)]
RequiredValue = Annotated[Any, BeforeValidator(_claim_value)]


class OidcIssuer(BaseModel, metaclass=Explained):
    """One issuer: `issuer` exactly as its tokens have it in `iss`, for `audience`, by `algorithms`.

    Its keys are those of `jwks_uri`, or of what its discovery document names, or of `jwks_file`.  It speaks for
    `tenant`, or for the one of `tenants` that `tenant_claim` names, and for no other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    issuer: Annotated[str, AfterValidator(_issuer_url)]
    audience: Annotated[str, Field(min_length=1)]
    other_audiences: list[str] = []
    """Who else a token may be for; each of them could pass a token on that it was sent."""

    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    jwks_uri: Annotated[str, AfterValidator(_keys_url)] | None = None
    jwks_file: FilePath | None = None
    ca_file: FilePath | None = None
    tenant: str | None = None
    tenant_claim: ClaimName | None = None
    tenants: list[str] = []
    principal_claim: ClaimName = "sub"
    roles_claim: ClaimPath = []
    role_names: dict[str, str] = {}
    """What roles of the issuer's are called here; those that are not in it are no roles.  Empty: as they are."""

    scopes_claim: ClaimPath = []
    scope_names: dict[str, str] = {}
    required: dict[ClaimName, RequiredValue] = {}
    leeway_s: Annotated[int, Field(ge=0, le=120)] = DEFAULT_LEEWAY_S
    refresh_s: Annotated[int, Field(ge=30, le=86_400)] = DEFAULT_REFRESH_S
    keys_max_age_s: Annotated[int, Field(ge=30, le=7 * 86_400)] = DEFAULT_KEYS_MAX_AGE_S

    @field_validator("other_audiences", "tenants", "algorithms")
    @classmethod
    def _each_once(cls, values: list[str]) -> list[str]:
        for index, value in enumerate(values):
            if not value or value in values[:index]:
                raise wrong_at((index,), "it is empty, or there already: leave it out")
        return values

    @model_validator(mode="after")
    def _has_one_source_of_keys(self) -> OidcIssuer:
        if self.jwks_file is not None and self.jwks_uri is not None:
            raise wrong_at(("jwks_file",), "keys come from jwks_uri or from jwks_file: leave one out")
        if self.keys_max_age_s < self.refresh_s:
            text = f"at most keys_max_age_s, which is {self.keys_max_age_s:,}, is taken: keys would end before that"
            raise wrong_at(("refresh_s",), text)
        return self

    @model_validator(mode="after")
    def _says_for_whom_it_speaks(self) -> OidcIssuer:
        if (self.tenant is None) == (self.tenant_claim is None):
            raise ValueError("say for whom it speaks: tenant: NAME, or tenant_claim with tenants: [NAME, ...]")
        if self.tenant is not None and self.tenants:
            raise wrong_at(("tenants",), "tenants go with tenant_claim: with tenant: NAME leave them out")
        if self.tenant_claim is not None and not self.tenants:
            text = "a token may name only tenants that are listed: write tenants: [NAME, ...]"
            raise wrong_at(("tenant_claim",), text)
        return self

    @model_validator(mode="after")
    def _names_what_it_reads(self) -> OidcIssuer:
        if self.role_names and not self.roles_claim:
            raise wrong_at(("role_names",), "no roles are read that it could name: say roles_claim, or leave it out")
        if self.scope_names and not self.scopes_claim:
            raise wrong_at(("scope_names",), "no scopes are read that it could name: say scopes_claim, or leave it out")
        return self

    @property
    def speaks_for(self) -> tuple[str, ...]:
        """The tenants whose principals it may vouch for."""
        return (self.tenant,) if self.tenant is not None else tuple(self.tenants)
