"""URLs as they are judged and as they are sent: one strict parser, and the entries of an allow-list.

Rules:

1. A URL is compared in one form only (`WebUrl`), and what is sent is made of that form, not of the text that was given.
2. What two parsers could read differently is refused, not repaired: user information, backslashes, control characters,
   spaces, `%` in a host, dot segments, numbers that some resolvers take for addresses.
3. Hosts are compared as A-labels (RFC 5891): a look-alike in another alphabet is another name.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote, urljoin

from airside.stack.errors import InvalidConfig, InvalidInput

MAX_URL_LENGTH = 4096
"""Longer ones carry data rather than name something; servers take 8,000 at most."""

PORTS = {"http": 80, "https": 443}

_FORM = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?"
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ud800-\udfff\\]")
_TARGET = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?|^`{}\"<>\[\]-]|%[0-9A-Fa-f]{2})*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_MAX_DECODINGS = 4
"""Percent-encoding within percent-encoding: no more than this is looked into, and none deeper is let through."""


@dataclass(frozen=True, slots=True)
class WebUrl:
    """A URL in the one form in which it is compared and sent; `host` is an A-label name, or an address."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address that the host is, None for a name."""
        return _address(self.host)

    @property
    def authority(self) -> str:
        """Host and port as a request names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whose it is: scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """What a request asks the server for."""
        return self.path + self.query

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> WebUrl:
    """Return a URL in its one form; raise `InvalidInput` for what could be read in two ways, or is none."""
    if len(text) > MAX_URL_LENGTH:
        raise InvalidInput(f"url: it has {len(text):,} characters, of at most {MAX_URL_LENGTH:,}")
    if unseen := _UNSEEN.search(text):
        raise InvalidInput(f"url: the character {unseen.group()!a} is not allowed in a URL: percent-encode it")
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidInput("url: give an absolute URL: https://host/path")
    scheme = match["scheme"].lower()
    if scheme not in PORTS:
        raise InvalidInput(f"url: the scheme {scheme!r:.40} is neither https nor http")
    host, port = _parse_authority(match["authority"], PORTS[scheme])
    path, query = match["path"] or "/", match["query"] or ""
    if not _TARGET.fullmatch(path + query):
        raise InvalidInput("url: path and query are ASCII, everything else percent-encoded as %XX")
    _check_segments(path)
    return WebUrl(scheme, host, port, path, query)


def follow(url: WebUrl, location: str) -> WebUrl:
    """Return where a redirect leads; raise `InvalidInput` for what could be read in two ways."""
    if _UNSEEN.search(location):
        raise InvalidInput("url: the redirect's location has characters that are not allowed in a URL")
    try:
        joined = urljoin(str(url), location)
    except ValueError as error:
        raise InvalidInput(f"url: the redirect's location: {error}") from None
    return parse_url(joined)


def _parse_authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise InvalidInput("url: user information before the host is not allowed")
    if "%" in authority:
        raise InvalidInput("url: a host has no percent-encoding and no zone")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise InvalidInput(f"url: {authority!r:.80} is no host, or host:port")
    port = int(match["port"]) if match["port"] else default_port
    if port > 65_535:
        raise InvalidInput(f"url: {port} is no port")
    return parse_host(match["host"]), port


def parse_host(text: str) -> str:
    """Return a host in its one form: an address as it is written canonically, a name as A-labels in lower case."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise InvalidInput(f"url: {text!r:.80} is no IPv6 address") from None
    host = (text if text.isascii() else _to_ascii(text)).lower()
    host = host[:-1] if host.endswith(".") else host
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # what browsers and resolvers read as an IPv4 address, in whatever base
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise InvalidInput(f"url: {host!r:.80} is a number, but no IPv4 address of four decimal parts") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidInput(f"url: {host!a:.80} is no name of a host: letters, digits and '-' between dots")
    return host


def _to_ascii(host: str) -> str:
    import idna  # its tables are large, and few need them

    try:
        return idna.encode(host, uts46=True, std3_rules=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise InvalidInput(f"url: {host!a:.80} is no internationalised name of a host") from None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _check_segments(path: str) -> None:
    """Raise `InvalidInput` for a path that leads upwards in any reading, however often it is decoded."""
    for decoded in _decodings(path):
        if _CONTROLS.search(decoded):
            raise InvalidInput("url: a path without control characters is needed, encoded ones among them")
        for segment in decoded.replace("\\", "/").split("/"):
            if unicodedata.normalize("NFKC", segment.split(";")[0]).strip() in (".", ".."):
                raise InvalidInput("url: a path without '.' and '..' is needed, encoded ones among them")


def _decoded(path: str) -> str:
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:  # some servers read dots and slashes in what is no UTF-8
        raise InvalidInput("url: what is percent-encoded has to be UTF-8") from None


def _decodings(path: str) -> list[str]:
    """Return a path and what it is when it is decoded once, twice, ...; raise `InvalidInput` if there is no end."""
    found = [path]
    while (decoded := _decoded(found[-1])) != found[-1]:
        found.append(decoded)
        if len(found) > _MAX_DECODINGS:
            raise InvalidInput("url: percent-encoding within percent-encoding")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPattern:
    """What URLs an entry allows: one scheme and port, a host or all below it, and what lies under a path."""

    scheme: str
    host: str
    port: int
    path: str
    below: bool

    @classmethod
    def parse(cls, text: str) -> UrlPattern:
        """Read `https://host/path`, or `https://*.host`; raise `InvalidConfig` for what would allow nothing, or all."""
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "https", text
        below = rest.startswith("*.")
        try:
            url = parse_url(f"{scheme}://{rest[2:] if below else rest}")
        except InvalidInput as error:
            raise InvalidConfig(f"allow: {text!r:.200}: {error.message}") from None
        if url.query or "?" in text or "#" in text:
            raise InvalidConfig(f"allow: {text!r:.200}: an entry ends with the path")
        if len(_decodings(url.path)) > 1:
            raise InvalidConfig(f"allow: {text!r:.200}: write the path without percent-encoding")
        if below and (url.address is not None or "." not in url.host):
            raise InvalidConfig(f"allow: {text!r:.200}: '*.' stands before a name of two parts or more")
        return cls(scheme=url.scheme, host=url.host, port=url.port, path=url.path, below=below)

    def allows(self, url: WebUrl) -> bool:
        """Whether a URL is one of these."""
        if (url.scheme, url.port) != (self.scheme, self.port):
            return False
        if self.below:
            return url.address is None and url.host.endswith("." + self.host) and self._has_path(url.path)
        return url.host == self.host and self._has_path(url.path)

    def _has_path(self, path: str) -> bool:
        """Whether a path is under the entry's in every reading: servers decode, and take `//` for `/`, or do not."""
        if self.path == "/":
            return True
        if len({decoded.count("/") + decoded.count("\\") for decoded in _decodings(path)}) > 1 or "//" in path:
            return False
        return path == self.path or path.startswith(self.path if self.path.endswith("/") else self.path + "/")
