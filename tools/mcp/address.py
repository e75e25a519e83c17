"""`ServerAddress`: how a tool server is reached, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airside.tools.builtin.http_exchange import Resolve, resolve
from airside.tools.builtin.urls import WebUrl
from airside.tools.sandbox.limits import SandboxLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A command that is started, or a URL.

    `given` are variables of its environment, or headers of requests; `secrets` name the tenant's secret that is the
    value of each of the others.  A server that is started may read the paths of `read`, write in `workspace`, which it
    sees as `/workspace`, and use what `limits` say; `private` = a URL may lead into a private network; `asks` = what it
    asks before it completes a call is put to people.
    """

    name: str
    command: tuple[str, ...] = ()
    url: WebUrl | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    read: tuple[str, ...] = ()
    workspace: str = ""
    limits: SandboxLimits = field(default_factory=SandboxLimits)
    ca_file: str = ""
    asks: bool = False
    resolve: Resolve = resolve

    @property
    def launch(self) -> dict[str, Any]:
        """What a pin holds of it."""
        return {"command": list(self.command)} if self.url is None else {"url": str(self.url)}

    def variables(self, secrets: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a server that is started, with a tenant's secrets."""
        return {**self.given, **{name: secrets[secret] for name, secret in self.secrets.items()}}

    def headers(self, secrets: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of requests; what is sent as `authorization` is a bearer's unless it says otherwise."""
        return {
            name: f"Bearer {value}" if name.lower() == "authorization" and " " not in value else value
            for name, value in self.variables(secrets).items()
        }
