"""Where tenants' secrets are read: `SecretsProvider`, and two that come with Airside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from airside.stack.calling import explain_misuse
from airside.stack.errors import AirsideError, InvalidConfig, InvalidId
from airside.stack.ids import TenantId, parse_tenant
from airside.tools.secrets.redaction import MAX_LENGTH, MIN_LENGTH

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_NONE: Mapping[str, str] = MappingProxyType({})


class _NotThere(LookupError):
    """One of our own providers has no such secret; its text has nothing of one."""


class SecretMissing(AirsideError):
    """A secret that a tool needs is not there, or none that could be kept secret; the tool was not called."""


@runtime_checkable
class SecretsProvider(Protocol):
    """Says what a tenant's secrets are.  Only executors ask, before a call of a tool that declares the name.

    Guarantees: an answer is a secret of this tenant, or of all tenants; the same question may be asked at any time,
    in any thread, by several at once.  Raises `LookupError` for one that is not there; what else it raises is not
    shown to anybody, for it may hold anything.
    """

    def secret(self, tenant: str, name: str) -> str:
        """Return a tenant's secret."""


@explain_misuse(how="EnvironmentSecrets({tenant: {name: variable}})")
class EnvironmentSecrets:
    """Secrets in environment variables of the process that starts the stack: `{tenant: {name: variable}}`.

    `shared` are those of all tenants, by name.  They are read when the stack starts; its processes have the variables
    no more.
    """

    def __init__(
        self, tenants: Mapping[str, Mapping[str, str]] = MappingProxyType({}), *, shared: Mapping[str, str] = _NONE
    ):
        for tenant, names in tenants.items():
            _check_tenant("EnvironmentSecrets", tenant)
            _check_names(f"EnvironmentSecrets: {tenant}", names)
        _check_names("EnvironmentSecrets: shared", shared)
        self._tenants = {tenant: dict(names) for tenant, names in tenants.items()}
        self._shared = dict(shared)

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that have secrets of their own."""
        return frozenset(self._tenants)

    @property
    def names(self) -> frozenset[str]:
        """The names of all secrets."""
        return frozenset(self._shared).union(*self._tenants.values())

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that hold them."""
        return frozenset(self._shared.values()).union(*(names.values() for names in self._tenants.values()))

    def secret(self, tenant: str, name: str) -> str:
        """Return what the variable of a tenant's secret holds."""
        return _found(os.environ, self._variable(tenant, name))

    def read(self) -> SecretsProvider:
        """Return the secrets as they are now, for processes that do not have the variables."""
        return _ReadSecrets(self, {name: os.environ[name] for name in self.variables if name in os.environ})

    def _variable(self, tenant: str, name: str) -> str:
        return self._tenants.get(tenant, {}).get(name) or self._shared[name]


class _ReadSecrets:
    """What was in the environment."""

    def __init__(self, source: EnvironmentSecrets, values: dict[str, str]) -> None:
        self._source = source
        self._values = values

    def secret(self, tenant: str, name: str) -> str:
        return _found(self._values, self._source._variable(tenant, name))


def _found(values: Mapping[str, str], variable: str) -> str:
    if variable not in values:
        raise _NotThere(f"the environment variable {variable} was not set where the stack was started")
    return values[variable]


@explain_misuse(how="FileSecrets(folder)")
class FileSecrets:
    """Secrets in files, as orchestrators mount them: `folder/TENANT/NAME`, and `shared/NAME` for all tenants.

    A file is read before each call, so that a new one takes effect at once.  Links are followed within a tenant's
    folder, and nowhere else.
    """

    def __init__(self, folder: str | Path, *, shared: str | Path | None = None) -> None:
        self._folder = Path(folder)
        self._shared = None if shared is None else Path(shared)

    def secret(self, tenant: str, name: str) -> str:
        """Return what the file of a tenant's secret holds, without the end of its last line."""
        if not _NAME.fullmatch(name):  # neither this nor a tenant's id can have a slash or a dot
            raise _NotThere("that is no name of a secret")
        own = self._folder.resolve() / parse_tenant(tenant)
        for home in (own, *([self._shared.resolve()] if self._shared is not None else [])):
            path = (home / name).resolve()
            if path.is_relative_to(home) and path.is_file():
                with path.open(encoding="utf-8") as file:
                    return file.read(MAX_LENGTH + 2).rstrip("\r\n")
        raise _NotThere(f"there is no file {name} in the folder of {tenant}")


def checked_names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of secrets that are declared; raise `InvalidConfig` for what is none."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidConfig(f"{what}: secrets {names!r:.80} is not a list of names: give secrets=('crm_token',)")
    found = tuple(dict.fromkeys(names))
    for name in found:
        _check_name(what, name)
    return found


def checked_provider(
    given: object, declared: Mapping[str, tuple[str, ...]], tenants: Iterable[str]
) -> SecretsProvider | None:
    """Return an app's provider, held against what its tools declare (names by who declares them) and its tenants.

    Raises `InvalidConfig` for a secret that nobody can give, and for one that nobody takes.
    """
    needed = {name: who for who, names in declared.items() for name in names}
    if given is None:
        if needed:
            name, who = next(iter(needed.items()))
            raise InvalidConfig(f"{who}: there is no secret {name!r}: give App(secrets=EnvironmentSecrets(...)), say")
        return None
    if isinstance(given, type) or not isinstance(given, SecretsProvider):
        raise InvalidConfig(f"secrets: {given!r:.80} has no secret(tenant, name): give EnvironmentSecrets(...), say")
    if isinstance(given, EnvironmentSecrets):
        for name in sorted(given.names ^ set(needed)):
            if name in needed:
                raise InvalidConfig(
                    f"{needed[name]}: no tenant has a secret {name!r}: name its variable in App(secrets=...)"
                )
            raise InvalidConfig(f"secrets: no tool declares a secret {name!r}: give @tool(secrets=({name!r},))")
        for tenant in sorted(given.tenants - set(tenants)):
            raise InvalidConfig(f"secrets: the directory lists no tenant {tenant!r}")
    elif not needed:
        raise InvalidConfig("secrets: no tool declares any: give @tool(secrets=(...))")
    return given


def unset(provider: SecretsProvider | None) -> list[str]:
    """Say which environment variables of secrets are not set in this process."""
    variables = provider.variables if isinstance(provider, EnvironmentSecrets) else frozenset()
    return [
        f"secrets: the environment variable {name} is not set: calls that need it will not begin"
        for name in sorted(variables)
        if not os.environ.get(name)
    ]


def read_secrets(provider: SecretsProvider | None, tenant: TenantId, names: Iterable[str]) -> dict[str, str]:
    """Return a tenant's secrets by name; raise `SecretMissing` saying which is not there, and nothing of a secret."""
    return {name: _read(provider, tenant, name) for name in names}


def _read(provider: SecretsProvider | None, tenant: TenantId, name: str) -> str:
    try:
        found, why = (provider.secret(tenant, name) if provider is not None else None), ""
    except LookupError as error:
        found, why = None, str(error) if isinstance(error, _NotThere) else ""
    except Exception as error:
        found, why = None, f"the provider failed ({type(error).__name__})"
    if found is None:
        raise SecretMissing(f"{tenant} has no secret {name!r}" + (f": {why}" if why else ""))
    if not isinstance(found, str) or not MIN_LENGTH <= len("".join(found.split())) <= len(found) <= MAX_LENGTH:
        raise SecretMissing(f"{tenant}: secret {name!r} is no text of {MIN_LENGTH} to {MAX_LENGTH:,} characters")
    if not all(each.isprintable() or each in "\r\n\t" for each in found):
        raise SecretMissing(f"{tenant}: secret {name!r} has characters that are not printed")
    return str(found)


def _check_tenant(what: str, tenant: object) -> None:
    try:
        parse_tenant(tenant)
    except InvalidId as error:
        raise InvalidConfig(f"{what}: {error.message}") from None


def _check_names(what: str, names: object) -> None:
    if not isinstance(names, Mapping):
        raise InvalidConfig(f"{what}: {names!r:.80} is not a mapping: give {{name: variable}}")
    for name, variable in names.items():
        _check_name(what, name)
        if not isinstance(variable, str) or not variable or "=" in variable or "\0" in variable:
            raise InvalidConfig(f"{what}: {variable!r:.80} is no name of an environment variable")


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfig(f"{what}: {name!r:.80} is no name of a secret: up to 64 of a-z, 0-9 and _, as 'crm_token'")
