"""`HttpServer`: where a stack serves its HTTP API and its console by itself, checked before anything starts."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig

MOST_PER_NODE = 16
"""Servers of one node: each is a process, and more than a machine has cores serve no more."""

_NEEDED = ("starlette", "uvicorn", "jinja2")
_MAX_NAME_CHARS = 253


@explain_misuse()
@dataclass(frozen=True, kw_only=True)
class HttpServer:
    """How a stack serves HTTP, on every node that there is when it starts.

    It listens on `host`, this machine alone unless it is told otherwise, at `port` (0: any that is free, another after
    each restart).  `per_node` servers share it, which then have no console: a browser is logged in to one of them.
    `allowed_hosts` are the names that clients reach it by.  What others reach needs `tls_cert` and `tls_key`, PEM files
    on each node, or a proxy with a certificate before it: `trusted_proxies` are the addresses of those that are
    believed what they say of where a request comes from.  `console` = the pages for people too.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: Sequence[str] = ()
    tls_cert: Path | str | None = None
    tls_key: Path | str | None = None
    trusted_proxies: Sequence[str] = ()
    console: bool = True
    per_node: int = 1

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """The certificate and its key, if there are any."""
        return None if self.tls_cert is None or self.tls_key is None else (Path(self.tls_cert), Path(self.tls_key))

    @property
    def address(self) -> str:
        """Where it listens, as `HOST:PORT`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        """How its URLs begin."""
        return "http" if self.tls is None else "https"

    def checked(self) -> HttpServer:
        """Return it with whole paths; raise `InvalidConfig` for what cannot be served, or not safely."""
        _check(is_name(self.host), f"host: {self.host!r:.80} is no address to listen on: give 127.0.0.1, say")
        _check(_is_count(self.port, 0, 65_535), f"port: {self.port!r:.40} is no whole number from 0 to 65535")
        _check(_is_count(self.per_node, 1, MOST_PER_NODE), f"per_node: {self.per_node!r:.40} is none from 1 to 16")
        _check(type(self.console) is bool, f"console: {self.console!r:.40} is neither True nor False")
        one_each = "per_node: a browser is logged in to one server: give console=False, or per_node=1"
        _check(self.per_node == 1 or not self.console, one_each)
        names = _texts("allowed_hosts", self.allowed_hosts)
        for name in names:
            _check(is_name(name), f"allowed_hosts: {name!r:.80} is no name of a host")
        proxies = _texts("trusted_proxies", self.trusted_proxies)
        for proxy in proxies:
            _check(_is_network(proxy), f"trusted_proxies: {proxy!r:.80} is no address: give 10.0.0.1, say")
        _check((self.tls_cert is None) == (self.tls_key is None), "give tls_cert and tls_key, both or neither")
        whole = replace(self, allowed_hosts=names, trusted_proxies=proxies)
        if self.tls is not None:
            certificate, key = (path.expanduser().resolve() for path in self.tls)
            whole = replace(whole, tls_cert=certificate, tls_key=key)
            _check_certificate(certificate, key)
        if not is_loopback(self.host):
            said = f"host {self.host}: credentials would be sent in clear"
            _check(self.tls or proxies, f"{said}: give tls_cert and tls_key, or trusted_proxies")
            _check(names, f"host {self.host}: others reach this: give allowed_hosts, the names they reach it by")
        for package in _NEEDED:
            _check(find_spec(package), f"it needs {package}, which is not installed: pip install 'airside[http]'")
        return whole


def is_loopback(host: str) -> bool:
    """Whether what listens there is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_name(text: object) -> bool:
    """Whether a text may be an address or a name of a host; whether there is one is another question."""
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_NAME_CHARS:
        return False
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return text.isascii() and all(character.isalnum() or character in ".-_" for character in text)
    return True


def _check(holds: object, problem: str) -> None:
    if not holds:
        raise InvalidConfig(f"http: {problem}")


def _is_count(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _texts(field: str, given: object) -> tuple[str, ...]:
    _check(isinstance(given, Iterable) and not isinstance(given, str | bytes), f"{field}: give a list of texts")
    assert isinstance(given, Iterable)
    found = tuple(given)
    _check(all(isinstance(each, str) for each in found), f"{field}: give a list of texts")
    return found


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:  # `ssl.SSLError` is one
        raise InvalidConfig(f"http: {certificate} and {key}: no certificate with its key: {error}") from None
