"""`http_request`: a tool that sends HTTP requests to where an operator allows it, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any

from airside.stack.calling import explain_misuse
from airside.stack.errors import AirsideError, InvalidConfig, InvalidInput
from airside.stack.values import EffectClass
from airside.tools.builtin.addresses import Address, embedded, refused_address
from airside.tools.builtin.credentials import Credential
from airside.tools.builtin.http_exchange import (
    Connect,
    ExchangeFailed,
    HttpAnswer,
    HttpRequest,
    Resolve,
    connect,
    connect_to_any,
    exchange,
    resolve,
)
from airside.tools.builtin.texts import CONTROLS, as_text
from airside.tools.builtin.urls import UrlPattern, WebUrl, follow, parse_url
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import InDoubt, Tool, ToolContext, ToolError

SAFE_METHODS = frozenset({"GET", "HEAD"})
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
MAX_BYTES = 256 * 1024
_MAX_BYTES_EVER = 8 * 1024 * 1024
_MARGIN_S = 5.0
"""By how much the tool's own timeout is longer than the request's, so that what is said of it is the request's."""

RESPONSE_HEADERS = ("content-type", "etag", "last-modified", "link", "location", "retry-after")
_MAX_HEADER_CHARACTERS = 2_048
_FRAMING = "accept-encoding connection content-length expect host keep-alive te trailer transfer-encoding upgrade via"
_OURS = {*_FRAMING.split(), "cookie", "idempotency-key"}
"""Headers that frame a request, or are the tool's to set; no agent gives them."""

_KEPT_ACROSS_ORIGINS = frozenset({"accept", "accept-language", "content-type", "idempotency-key"})
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CHARSET = re.compile(
    r"(?:us-ascii|utf-8|utf-16(?:le|be)?|iso-8859-(?:[1-9]|1[013-6])|windows-125[0-8]|shift_jis|euc-jp|euc-kr|gb2312|gbk|gb18030"
    r"|big5|koi8-[ru])"
)
"""Python knows others, which are no charsets, or take long for what is made to take long."""

_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript", "application/yaml")


@explain_misuse()
@dataclass(frozen=True, slots=True)
class AllowedUrl:
    """An entry of an allow-list: what lies under `url`, which is `https://host/path` or `https://*.host/path`.

    `private` = the host may have addresses of a private network.  `methods` are those allowed here, of the tool's (all,
    if none are given).  A secret, the tenant's of the name `secret`, or that of the environment variable `secret_env`
    or the file `secret_file` where tools run, is sent as the header `secret_header`, after `secret_prefix`; no redirect
    to elsewhere gets it.
    """

    url: str
    methods: tuple[str, ...] = ()
    private: bool = False
    secret_env: str = ""
    secret_file: str = ""
    secret_header: str = "authorization"  # noqa: S105 - where it is sent, not one
    secret_prefix: str = "Bearer "  # noqa: S105 - what stands before it
    secret: str = ""

    @property
    def credential(self) -> Credential:
        """Where its secret is."""
        return Credential(self.secret, self.secret_env, self.secret_file)


class _NotAllowed(AirsideError):
    """Nothing was sent: there is no entry for it, or its host's addresses are not public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hop:
    """One request on the way: what the agent asked for, or what a redirect made of it."""

    url: WebUrl
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    at_home: bool = True  # no redirect led to another origin yet

    def after(self, answer: HttpAnswer) -> _Hop:
        """Return what a redirect asks for, as browsers do it: across origins, nothing that speaks for the sender."""
        url = follow(self.url, answer.header("location"))
        method, headers, body = self.method, self.headers, self.body
        drops = answer.status == 303 and method not in SAFE_METHODS
        if drops or (answer.status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            headers = tuple(each for each in headers if each[0] != "content-type")
        if url.origin != self.url.origin:
            headers = tuple(each for each in headers if each[0] in _KEPT_ACROSS_ORIGINS)
        at_home = self.at_home and url.origin == self.url.origin
        return _Hop(url=url, method=method, headers=headers, body=body, at_home=at_home)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSender:
    """Sends requests for a tool; `resolve` and `connect` are how it reaches the network."""

    entries: tuple[tuple[UrlPattern, AllowedUrl], ...]
    methods: tuple[str, ...]
    request_headers: frozenset[str]
    response_headers: tuple[str, ...]
    max_bytes: int
    timeout_s: float
    max_redirects: int
    ca_file: str
    sends_key: bool
    resolve: Resolve = resolve
    connect: Connect = connect

    async def request(
        self,
        context: ToolContext,
        url: str,
        method: str = "",
        headers: Mapping[str, str] | None = None,
        body: str = "",
    ) -> dict[str, Any]:
        """Send a request, follow where it is redirected to, and return what came back."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(self.timeout_s, context.deadline_s)
        secrets: set[str] = set()
        answer, hop, problem = None, None, ""
        method = method or self.methods[0]
        try:
            following: _Hop | None = self._first(context, url, method, headers or {}, body)
            for _ in range(self.max_redirects + 1):
                if following is None:
                    break
                answer, hop = await self._send(context, following, secrets, ends_at), following
                following = _redirected(hop, answer)
            else:
                problem = f"more than {self.max_redirects} redirects" if following is not None else ""
        except (_NotAllowed, InvalidInput, ExchangeFailed, ToolError) as error:  # of the last hop, which did nothing
            problem = Redactor(secrets).text(error.message)
        if answer is None or hop is None:
            if self.sends_key and context.attempt > 1 and method not in SAFE_METHODS:
                raise InDoubt(f"an earlier attempt may have been carried out; now: {problem}")
            raise ToolError(problem)
        return self._result(hop, answer, problem, Redactor(secrets))

    def _first(self, context: ToolContext, url: str, method: str, headers: Mapping[str, str], body: str) -> _Hop:
        given = {name.lower(): value for name, value in headers.items()}
        for name, value in given.items():
            if name not in self.request_headers:
                raise InvalidInput(f"headers: {name!r:.80} is none of those allowed: {sorted(self.request_headers)}")
            is_plain = value.isascii() and value.isprintable() and value == value.strip()
            if not (is_plain and len(value) <= _MAX_HEADER_CHARACTERS):
                raise InvalidInput(f"headers: {name} is no printable ASCII text of up to {_MAX_HEADER_CHARACTERS:,}")
        if body and method not in _WITH_BODY:
            raise InvalidInput(f"body: a {method} has none")
        if self.sends_key and method not in SAFE_METHODS:
            given["idempotency-key"] = context.idempotency_key
        return _Hop(url=parse_url(url), method=method, headers=tuple(given.items()), body=body.encode())

    async def _send(self, context: ToolContext, hop: _Hop, secrets: set[str], ends_at: float) -> HttpAnswer:
        """Send one request; raise `InDoubt` if it may have changed something and nobody knows."""
        entry = self._entry(hop)
        secret = entry.credential.read(context) if hop.at_home and entry.credential else ""
        request = _request_of(hop, entry, secret)
        secrets.update({secret} - {""})
        margin = Redactor(secrets).longest
        sent = False
        try:
            async with asyncio.timeout_at(ends_at):
                addresses = await self._addresses(hop.url, entry)
                tls_host = hop.url.host if hop.url.scheme == "https" else ""
                streams = await connect_to_any(addresses, hop.url.port, tls_host, self.ca_file, self.connect)
                sent = hop.method not in SAFE_METHODS
                return await exchange(request, *streams, self.max_bytes + margin)
        except (TimeoutError, ExchangeFailed) as error:
            text = error.message if isinstance(error, ExchangeFailed) else f"no answer within {self.timeout_s:g} s"
            text = Redactor(secrets).text(text)
            if sent:
                raise InDoubt(f"{hop.method} was sent, and may have been carried out: {text}") from None
            raise ExchangeFailed(text) from None

    def _entry(self, hop: _Hop) -> AllowedUrl:
        fitting = [entry for pattern, entry in self.entries if pattern.allows(hop.url)]
        if not fitting:
            raise _NotAllowed(f"no entry allows {hop.url.scheme}://{hop.url.authority} with this path")
        for entry in fitting:
            if hop.method in self.methods and hop.method in (entry.methods or self.methods):
                return entry
        raise _NotAllowed(f"no entry allows a {hop.method} there")

    async def _addresses(self, url: WebUrl, entry: AllowedUrl) -> list[Address]:
        """Return the addresses of a host, all of which may be connected to."""
        literal = url.address
        try:
            found = [literal] if literal is not None else await self.resolve(url.host, url.port)
        except (OSError, ValueError, UnicodeError) as error:
            raise ExchangeFailed(f"{url.host} is not resolved: {error}") from None
        for address in found:
            if problem := refused_address(address, private=entry.private):
                raise _NotAllowed(f"{url.host}: {problem}")
        if not found:
            raise ExchangeFailed(f"{url.host} has no address")
        return [embedded(address) for address in found]

    def _result(self, hop: _Hop, answer: HttpAnswer, problem: str, redactor: Redactor) -> dict[str, Any]:
        body = redactor.data(answer.body)
        if answer.truncated and redactor.longest:
            body = body[: -redactor.longest]
        truncated = answer.truncated or len(body) > self.max_bytes
        shown = {name: _plain(redactor.text(answer.header(name))) for name in self.response_headers}
        result: dict[str, Any] = {
            "status": answer.status,
            "url": redactor.text(str(hop.url)),
            "headers": {name: value for name, value in shown.items() if value},
            "truncated": truncated,
        }
        text = _text_of(body[: self.max_bytes], answer, truncated)
        if text is None:
            result["base64"] = base64.b64encode(body[: self.max_bytes]).decode()
        else:
            result["text"] = redactor.text(text)
        return {**result, "redirect_not_followed": problem} if problem else result


def _redirected(hop: _Hop, answer: HttpAnswer) -> _Hop | None:
    if answer.status not in _REDIRECTS or not answer.header("location"):
        return None
    return hop.after(answer)


def _request_of(hop: _Hop, entry: AllowedUrl, secret: str) -> HttpRequest:
    ours = [("user-agent", "airside"), ("accept-encoding", "gzip, deflate")]
    if not any(name == "accept" for name, _ in hop.headers):
        ours.append(("accept", "*/*"))
    given = [each for each in hop.headers if not (secret and each[0] == entry.secret_header.lower())]
    if secret:
        ours.append((entry.secret_header.lower(), entry.secret_prefix + secret))
    return HttpRequest(
        method=hop.method,
        authority=hop.url.authority,
        target=hop.url.target,
        headers=(*ours, *given),
        body=hop.body,
    )


def _plain(value: str) -> str:
    return CONTROLS.sub("", value)[:_MAX_HEADER_CHARACTERS]


def _text_of(body: bytes, answer: HttpAnswer, truncated: bool) -> str | None:
    """Return a body as text, None for what is none."""
    message = Message()
    message["content-type"] = answer.header("content-type")[:_MAX_HEADER_CHARACTERS]
    kind, charset = message.get_content_type(), message.get_content_charset("utf-8")
    if answer.header("content-type") and not (kind.startswith(_TEXT_TYPES) or kind.endswith(("+json", "+xml"))):
        return None
    if answer.header("content-encoding").lower() not in ("", "identity", "gzip", "x-gzip", "deflate"):
        return None
    for name in dict.fromkeys((charset if _CHARSET.fullmatch(charset) else "utf-8", "utf-8")):
        text, _ = as_text(body, name, cut=truncated)
        if text is not None:
            return text
    return None


def http_request(
    *,
    allow: Sequence[str | AllowedUrl],
    methods: Sequence[str] = ("GET",),
    effect: EffectClass = "external",
    idempotent: bool = False,
    request_headers: Iterable[str] = ("accept", "accept-language", "content-type"),
    response_headers: Iterable[str] = RESPONSE_HEADERS,
    max_bytes: int = MAX_BYTES,
    timeout: float = 20.0,
    max_redirects: int = MAX_REDIRECTS,
    ca_file: str | Path = "",
    content: Iterable[str] = (),
    trusted_output: bool = False,
    scopes: Iterable[str] = (),
    name: str = "http_request",
    description: str = "",
) -> Tool:
    """Make a tool that sends HTTP requests to what `allow` lists: `https://host/path`, `https://*.host`, `AllowedUrl`.

    A fetched address carries out whatever it contains, so the effect is `external`; with `effect="read"`, for GET and
    HEAD alone, the risk is `medium`.  `idempotent` says that the servers do nothing twice for one `Idempotency-Key`,
    which is then sent.  `max_bytes` bounds a body, compressed or not, `timeout` everything together, in seconds.
    Raises `InvalidConfig` for an entry that allows nothing, or more than it says.
    """
    methods = _checked_methods(methods, "methods")
    safe = set(methods) <= SAFE_METHODS
    if effect == "read" and not safe:
        raise InvalidConfig(f"{name}: effect 'read' is that of GET and HEAD alone, and methods has {methods}")
    if not 1 <= max_bytes <= _MAX_BYTES_EVER or not 0 < timeout <= 600 or not 0 <= max_redirects <= 20:
        raise InvalidConfig(f"{name}: max_bytes is up to {_MAX_BYTES_EVER:,}, timeout up to 600, max_redirects to 20")
    sender = HttpSender(
        entries=tuple(_checked_entry(each, methods) for each in _listed(allow, name)),
        methods=methods,
        request_headers=frozenset(_checked_header(each) for each in request_headers),
        response_headers=tuple(_checked_header(each) for each in response_headers),
        max_bytes=max_bytes,
        timeout_s=timeout,
        max_redirects=max_redirects,
        ca_file=str(ca_file),
        sends_key=idempotent,
    )
    return Tool.from_schema(
        name,
        _schema(methods, sender.request_headers),
        sender.request,
        effect=effect,
        risk="medium" if effect == "read" else None,
        idempotent=idempotent or safe,
        timeout=timeout + _MARGIN_S,
        scopes=scopes,
        description=description or _described(allow, methods),
        content=content,
        trusted_output=trusted_output,
        secrets=[name for _, entry in sender.entries for name in entry.credential.names],
        # A byte of a body is at most three of JSON, and there are the headers, of which none are over 64 KiB.
        max_output_bytes=3 * max_bytes + 160 * 1024,
    )


def _listed(allow: Sequence[str | AllowedUrl], name: str) -> list[AllowedUrl]:
    if isinstance(allow, str) or not allow:
        raise InvalidConfig(f"{name}: allow is a list of one entry or more: allow=['https://api.example.com/v1']")
    return [AllowedUrl(each) if isinstance(each, str) else each for each in allow]


def _checked_entry(entry: AllowedUrl, methods: tuple[str, ...]) -> tuple[UrlPattern, AllowedUrl]:
    pattern = UrlPattern.parse(entry.url)
    shown = f"allow: {entry.url!r:.200}"
    allowed = _checked_methods(entry.methods, shown) if entry.methods else ()
    if not set(allowed) <= set(methods):
        raise InvalidConfig(f"{shown}: its methods {allowed} are not among the tool's: {methods}")
    has_secret = bool(entry.credential.checked(shown))
    if has_secret and pattern.scheme == "http" and not entry.private:
        raise InvalidConfig(f"{shown}: a secret is sent by https alone, but within a private network")
    if has_secret and not _HEADER_NAME.fullmatch(entry.secret_header.lower()):
        raise InvalidConfig(f"{shown}: secret_header {entry.secret_header!r:.80} is no name of a header")
    address = WebUrl(pattern.scheme, pattern.host, pattern.port, pattern.path).address
    if address is not None and (problem := refused_address(address, private=entry.private)):
        raise InvalidConfig(f"{shown} would allow nothing: {problem}")
    return pattern, replace(entry, methods=allowed)


def _checked_methods(methods: Sequence[str], where: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys([methods] if isinstance(methods, str) else methods))
    if not found or not set(found) <= set(_METHODS):
        raise InvalidConfig(f"{where}: methods are one or more of {', '.join(_METHODS)}, not {found!r:.80}")
    return found


def _checked_header(name: str) -> str:
    lower = name.lower()
    if not _HEADER_NAME.fullmatch(lower) or lower in _OURS or lower.startswith(("proxy-", "set-cookie")):
        raise InvalidConfig(f"headers: {name!r:.80} is no header that an agent gives or is given")
    return lower


def _schema(methods: tuple[str, ...], request_headers: frozenset[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {"url": {"type": "string", "maxLength": 4096, "description": "An absolute URL."}}
    if len(methods) > 1:
        properties["method"] = {"enum": list(methods), "default": methods[0]}
    if request_headers:
        properties["headers"] = {
            "type": "object",
            "properties": {each: {"type": "string"} for each in sorted(request_headers)},
            "additionalProperties": False,
        }
    if _WITH_BODY & set(methods):
        properties["body"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": ["url"], "additionalProperties": False}


def _described(allow: Sequence[str | AllowedUrl], methods: tuple[str, ...]) -> str:
    places = ", ".join(each if isinstance(each, str) else each.url for each in allow)
    return f"Send an HTTP request ({', '.join(methods)}) to one of: {places[:2_000]}."
