"""The directory: which tenants exist, who their principals are, and what each may have.  A YAML file, or code.

A listed principal's roles, scopes, clearance and attributes are the directory's; its token only proves who it is.
A tenant with `open: true` also takes principals it does not list, with the roles and scopes their token says, as far
as `open_roles` and `open_scopes` go.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from airside.stack.budget.ledger import UNIT, Cap, Per
from airside.stack.calling import close_names
from airside.stack.contracts.labels import tidy_label
from airside.stack.errors import InvalidConfig, InvalidId
from airside.stack.ids import SYSTEM_TENANT, parse_principal, parse_tenant
from airside.stack.input.models import Explained
from airside.stack.input.public_keys import public_key
from airside.stack.input.sentences import name_hint, wrong_at
from airside.stack.input.yaml_source import Lines, read_yaml
from airside.stack.issuers import OidcIssuer, issuer_name
from airside.stack.scheduling.admission import DEFAULT_CONCURRENCY, DEFAULT_QUEUE, TenantShare
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.values import CLEARANCES, Clearance, Limits

LOCAL_KEY_ID = "local"
"""The key id of the stack's own issuer, whose private key lies in its state directory."""


_BOUND = re.compile(r"([<>]=) ([0-9]+)")


class _Closed(BaseModel, metaclass=Explained):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _limits(value: dict[str, int]) -> dict[str, int]:
    for name, amount in value.items():
        if name not in Limits.__struct_fields__:
            raise wrong_at((name,), f"there is no such limit{name_hint(name, Limits.__struct_fields__)}")
        try:
            msgspec.convert({name: amount}, Limits)
        except msgspec.ValidationError as error:
            bound = _BOUND.search(str(error))
            most = {">=": "at least", "<=": "at most"}[bound[1]] + f" {int(bound[2]):,}" if bound else "another amount"
            raise wrong_at((name,), f"{most} is needed") from None
    return value


def _api_key(digest: str) -> str:
    if re.fullmatch("sha256:[0-9a-f]{64}", digest) is None:
        raise ValueError("not the digest of a key: write sha256: and what `printf %s KEY | sha256sum` prints")
    return digest


def _unit(unit: str) -> str:
    if re.fullmatch(UNIT, unit) is None:
        units = "cost_microusd, tokens, steps, tool_calls, wall_ms, or tool:NAME for the calls of one tool"
        raise ValueError(f"there is no such unit{_near(unit)}: write {units}")
    return unit


def _near(unit: str) -> str:
    near = close_names(unit, ("cost_microusd", "tokens", "steps", "tool_calls", "wall_ms"), alike=0.5)
    return f" (do you mean {' or '.join(near)}?)" if near else ""


def _tenant(name: str) -> str:
    try:
        if parse_tenant(name) == SYSTEM_TENANT:
            raise ValueError("that is the stack's own name: call the tenant something else")
    except InvalidId as error:
        raise ValueError(error.message) from None
    return name


def _principal(name: str) -> str:
    try:
        parse_principal(name)
    except InvalidId as error:
        raise ValueError(error.message) from None
    return name


TenantName = Annotated[str, AfterValidator(_tenant)]
PrincipalName = Annotated[str, AfterValidator(_principal)]

LimitFields = dict[str, int]
"""Any of the fields of `Limits`."""

DeadlineSeconds = Annotated[int, Field(ge=1)] | None
"""The longest a run may take from its admission to its end, the queue and people included
(`stack/scheduling/deadlines.py`)."""


class Principal(_Closed):
    """One principal of a tenant.  `api_keys` are `sha256:` and the hex digest of each key; keys are never stored.

    `issuers` are the OIDC issuers whose tokens are believed to be the principal's: none that is not named.

    `gateway` says whether the arguments of calls through the gateway are the principal's own word: `trusted` where a
    person makes each of them.  Where a model does, they count as text from outside.
    """

    roles: list[str] = []
    scopes: list[str] = []
    clearance: Clearance = "internal"
    attributes: dict[str, list[str]] = {}
    limits: LimitFields = {}
    api_keys: list[Annotated[str, AfterValidator(_api_key)]] = []
    issuers: list[str] = []
    gateway: Literal["untrusted", "trusted"] = "untrusted"

    check_limits = field_validator("limits")(_limits)


class Budget(_Closed):
    """What the runs of a tenant, or of all tenants, may use together: `limit` of `unit` ever, or per span of time.

    A unit is `cost_microusd`, `tokens`, `steps` (decisions of agents), `tool_calls`, `tool:NAME` (the calls of one
    tool) or `wall_ms` (milliseconds that decisions and calls take).
    """

    unit: Annotated[str, AfterValidator(_unit)]
    limit: Annotated[int, Field(ge=0, le=2**53)]
    per: Per = "ever"

    def cap(self) -> Cap:
        """Return the ledger's cap."""
        return Cap(unit=self.unit, limit=self.limit, per=self.per)


class Tenant(_Closed):
    """One tenant: how much it may have at once, its runs' limits and deadline, what they share, and its principals."""

    concurrency: Annotated[int, Field(ge=1, le=100_000)] = DEFAULT_CONCURRENCY
    queue: Annotated[int, Field(ge=0, le=10_000_000)] = DEFAULT_QUEUE
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """What the tenant gets of a busy cell, beside the other tenants' weights."""

    rate_per_minute: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Submissions it may make a minute; 0: any number."""

    clearance: Clearance = "internal"
    limits: LimitFields = {}
    budgets: list[Budget] = []
    deadline_s: DeadlineSeconds = None
    open: bool = False
    open_roles: list[str] = []
    open_scopes: list[str] = []
    open_issuers: list[str] = []
    """The OIDC issuers of whom principals are taken that are not listed: none that is not named."""

    principals: dict[PrincipalName, Principal] = {}

    check_limits = field_validator("limits")(_limits)

    @model_validator(mode="after")
    def _is_open_where_it_says_so(self) -> Tenant:
        if not self.open and (self.open_roles or self.open_scopes or self.open_issuers):
            raise ValueError(
                "open_roles, open_scopes and open_issuers are of a tenant with open: true, and of no other"
            )
        return self

    def share(self) -> TenantShare:
        """Return what admission allows the tenant."""
        return TenantShare(
            concurrency=self.concurrency,
            queue=self.queue,
            weight=self.weight,
            rate_per_minute=self.rate_per_minute,
        )

    def limits_of(self, principal: Principal) -> Limits:
        """Return the principal's limits; what the tenant names is the most its principals may have."""
        own = {name: min(amount, self.limits.get(name, amount)) for name, amount in principal.limits.items()}
        return Limits(**(self.limits | own))


class IssuerKey(_Closed):
    """A key tokens may be signed with: Ed25519, as the PEM of the public key (`stack/input/public_keys.py`)."""

    public_pem: str

    @field_validator("public_pem")
    @classmethod
    def _is_one_key(cls, pem: str) -> str:
        try:
            public_key(pem)
        except InvalidConfig as error:
            raise ValueError(error.message) from None
        return pem


class Directory(_Closed):
    """All tenants, and whose tokens are believed: those of `issuer` for `audience`, signed with one of `keys`.

    Tokens the stack signs itself, with its local key, are believed too, and those of the issuers in `oidc`.
    """

    issuer: str = "airside-local"
    audience: str = "airside"
    keys: dict[str, IssuerKey] = {}
    oidc: dict[Annotated[str, AfterValidator(issuer_name)], OidcIssuer] = {}
    budgets: list[Budget] = []
    """What all tenants together may use."""

    deadline_s: DeadlineSeconds = None
    """The deadline of every tenant's runs; a tenant's own can only be shorter."""

    house: TenantName | None = None
    """The tenant of those who run the stack: its operators and auditors reach all tenants."""

    tenants: Annotated[dict[TenantName, Tenant], Field(min_length=1)]

    @field_validator("keys")
    @classmethod
    def _keys_are_apart(cls, keys: dict[str, IssuerKey]) -> dict[str, IssuerKey]:
        seen: dict[bytes, str] = {}
        for kid, key in keys.items():
            if tidy_label(kid) == LOCAL_KEY_ID:
                raise wrong_at((kid,), "that is the id of the stack's own key: call this one something else")
            raw = public_key(key.public_pem).public_bytes_raw()
            if raw in seen:
                text = f"that is the same key as {seen[raw]!r}, and what one may sign the other may: leave one out"
                raise wrong_at((kid,), text)
            seen[raw] = kid
        return keys

    @model_validator(mode="after")
    def _house_is_a_tenant(self) -> Directory:
        if self.house is not None and self.house not in self.tenants:
            hint = name_hint(self.house, self.tenants)
            raise wrong_at(("house",), f"there is no tenant {self.house!r}{hint}: name one of the tenants, or none")
        return self

    @model_validator(mode="after")
    def _api_keys_are_of_one(self) -> Directory:
        holders: dict[str, str] = {}
        for name, tenant in self.tenants.items():
            for principal, who in tenant.principals.items():
                for index, digest in enumerate(who.api_keys):
                    holder = f"{principal} of {name}"
                    if holders.setdefault(digest, holder) != holder:
                        text = f"one API key of two principals: {holders[digest]} and {holder}: {digest:.20}..."
                        raise wrong_at(("tenants", name, "principals", principal, "api_keys", index), text)
        return self

    @model_validator(mode="after")
    def _issuers_are_apart(self) -> Directory:
        """Each has one entry, so that what a token says of its issuer leads to one way of checking it."""
        seen = {self.issuer: "issuer of the directory itself"}
        for name, entry in self.oidc.items():
            if entry.issuer in seen:
                text = f"that is the {seen[entry.issuer]} already: an issuer has one entry"
                raise wrong_at(("oidc", name, "issuer"), text)
            seen[entry.issuer] = f"issuer of {name}"
            for index, tenant in enumerate(entry.speaks_for):
                if tenant not in self.tenants:
                    place = ("tenant",) if entry.tenant is not None else ("tenants", index)
                    text = f"there is no tenant {tenant!r:.80}{name_hint(tenant, self.tenants)}"
                    raise wrong_at(("oidc", name, *place), text)
        return self

    @model_validator(mode="after")
    def _issuers_speak_for_whom_they_are_named_by(self) -> Directory:
        for tenant, entry in self.tenants.items():
            for index, name in enumerate(entry.open_issuers):
                self._check_speaks(name, tenant, ("open_issuers", index))
            for principal, who in entry.principals.items():
                for index, name in enumerate(who.issuers):
                    self._check_speaks(name, tenant, ("principals", principal, "issuers", index))
        return self

    def _check_speaks(self, name: str, tenant: str, place: tuple[int | str, ...]) -> None:
        if name not in self.oidc:
            there = name_hint(name, self.oidc) if self.oidc else ": name it under oidc"
            raise wrong_at(("tenants", tenant, *place), f"there is no issuer {name!r:.80}{there}")
        if tenant not in self.oidc[name].speaks_for:
            text = f"{name} does not speak for {tenant}: it may vouch for {', '.join(self.oidc[name].speaks_for)} alone"
            raise wrong_at(("tenants", tenant, *place), text)

    def metered(self, units: frozenset[str]) -> frozenset[str]:
        """Return the tenants whose runs share a budget of one of these units."""
        everybody = any(budget.unit in units for budget in self.budgets)
        return frozenset(
            name for name, t in self.tenants.items() if everybody or any(budget.unit in units for budget in t.budgets)
        )

    def caps(self) -> tuple[list[Cap], dict[str, list[Cap]]]:
        """Return the organisation's caps, and those of every tenant that has any."""
        tenants = {name: [b.cap() for b in tenant.budgets] for name, tenant in self.tenants.items() if tenant.budgets}
        return [budget.cap() for budget in self.budgets], tenants

    def deadlines(self) -> Deadlines:
        """Return what watches the runs' deadlines, as yet without runs."""
        tenants = {name: tenant.deadline_s for name, tenant in self.tenants.items() if tenant.deadline_s is not None}
        return Deadlines(self.deadline_s, tenants)


def load_directory(source: str | Path) -> Directory:
    """Load a directory from a file or YAML text; raise `InvalidConfig` naming the line of whatever is wrong."""
    return read_directory(source)[0]


def read_directory(source: str | Path) -> tuple[Directory, Lines]:
    """Load a directory as `load_directory`, and return where its entries stand."""
    return read_yaml(source, Directory, name="directory")


def lower(one: Clearance, other: Clearance) -> Clearance:
    """Return the lower of two clearances."""
    return CLEARANCES[min(CLEARANCES.index(one), CLEARANCES.index(other))]
