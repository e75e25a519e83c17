"""Keys of OIDC issuers: fetched before a token needs them, one fetch of an issuer at a time, bounded in all it takes.

What an issuer answers is read over TLS that is verified, from no redirect, within a bound of bytes and of seconds, over
connections to addresses that were checked; proxies of the environment are not used.  Where its keys are is said by the
directory, or by the issuer's discovery document, which must be of this issuer.  An issuer that cannot be asked costs
its own tokens, and nobody else's time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from typing import Any

from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidConfig, InvalidInput, text_of
from airside.stack.issuers import OidcIssuer
from airside.stack.security.authenticator import Authenticator
from airside.stack.security.issuer_keys import IssuerKeys, Need
from airside.stack.security.key_sets import MAX_KEY_SET_BYTES, KeySet, read_key_set
from airside.tools.builtin.addresses import Address, refused_address
from airside.tools.builtin.http_exchange import (
    Connect,
    ExchangeFailed,
    HttpRequest,
    Resolve,
    connect,
    connect_to_any,
    exchange,
    resolve,
)
from airside.tools.builtin.urls import WebUrl, parse_url

logger = logging.getLogger("airside")

FETCH_TIMEOUT_S = 5.0
"""For discovery and keys together: whoever waits for them waits no longer."""

MAX_WAITING = 1_000
"""Requests that wait for keys at a time; further ones are answered by the keys that are known."""

_DISCOVERY = "/.well-known/openid-configuration"


class KeyFetcher:
    """Fetches the keys that an authenticator needs; `resolve` and `connect` are how it reaches the network."""

    def __init__(self, authenticator: Authenticator, resolve: Resolve = resolve, connect: Connect = connect) -> None:
        self._authenticator = authenticator
        self._resolve = resolve
        self._connect = connect
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._waiting = 0

    def fetch_all(self) -> None:
        """Begin to fetch the keys of every issuer, so that what is wrong is logged before somebody asks."""
        for issuer in self._authenticator.issuers.values():
            self._begin(issuer)

    async def prepare(self, credential: Any) -> None:
        """Return when the keys are there that a credential is checked with, or cannot be had."""
        needed = self._authenticator.needs_keys(credential)
        if needed is None:
            return
        issuer, need = needed
        fetch = self._fetches.get(issuer.name)
        if fetch is None and issuer.may_fetch():
            fetch = self._begin(issuer)
        if fetch is None or need is Need.SOON or self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            await asyncio.wait([fetch])  # which does not cancel it for others if this one is cancelled
        finally:
            self._waiting -= 1

    def stats(self) -> dict[str, Any]:
        """Return of each issuer how many keys are believed, and what went wrong when they were last fetched."""
        found = {}
        for issuer in self._authenticator.issuers.values():
            keys = issuer.believed()
            found[issuer.name] = {"keys": len(keys.keys) if keys else 0, "problem": issuer.problem}
        return {"issuers": found} if found else {}

    def _begin(self, issuer: IssuerKeys) -> asyncio.Task[None]:
        issuer.begin()
        fetch = self._fetches[issuer.name] = asyncio.get_running_loop().create_task(self._fetch(issuer))
        fetch.add_done_callback(lambda _: self._fetches.pop(issuer.name, None))
        return fetch

    async def _fetch(self, issuer: IssuerKeys) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = await self._keys_of(issuer.entry)
        except TimeoutError:
            self._fail(issuer, f"no answer within {FETCH_TIMEOUT_S:g} s")
        except Exception as error:  # whatever it is, those who wait are answered, and somebody reads of it
            self._fail(issuer, text_of(error))
        else:
            if issuer.take(keys):
                text = "issuer %s has %d keys that its tokens may be signed with%s"
                unused = f"; not used: {'; '.join(keys.unused)}"[:1_000] if keys.unused else ""
                logger.info(text, issuer.name, len(keys.keys), unused, extra={"action": "issuer_keys_fetched"})

    def _fail(self, issuer: IssuerKeys, problem: str) -> None:
        issuer.fail(problem[:500])
        text = "the keys of issuer %s could not be fetched: %s"
        logger.warning(text, issuer.name, problem[:500], extra={"action": "issuer_keys_failed"})

    async def _keys_of(self, entry: OidcIssuer) -> KeySet:
        if entry.jwks_file is not None:
            data = await asyncio.to_thread(read_key_file, entry.jwks_file)
        elif entry.jwks_uri is not None:
            data = await self._get(parse_url(entry.jwks_uri), entry, private=True)
        else:
            discovery = parse_url(entry.issuer.rstrip("/") + _DISCOVERY)
            found = _keys_url(entry, await self._get(discovery, entry, private=True))
            # The operator named the issuer, and may have it in a private network; where it leads to is its own word.
            data = await self._get(found, entry, private=found.host == discovery.host)
        return read_key_set(data, entry.algorithms)

    async def _get(self, url: WebUrl, entry: OidcIssuer, *, private: bool) -> bytes:
        addresses = [url.address] if url.address is not None else await self._resolve(url.host, url.port)
        for address in addresses:
            if problem := _refused(url, address, private=private):
                raise InvalidInput(f"{url}: {problem}")
        request = HttpRequest(
            method="GET",
            authority=url.authority,
            target=url.target,
            headers=(("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", "airside")),
        )
        tls_host = url.host if url.scheme == "https" else ""
        streams = await connect_to_any(addresses, url.port, tls_host, entry.ca_file or "", self._connect)
        answer = await exchange(request, *streams, MAX_KEY_SET_BYTES)
        if 300 <= answer.status < 400:
            raise ExchangeFailed(f"{url}: redirects are not followed: name jwks_uri as it is")
        if answer.status != 200:
            raise ExchangeFailed(f"{url}: status {answer.status}")
        if answer.truncated:
            raise ExchangeFailed(f"{url}: the answer is over {MAX_KEY_SET_BYTES:,} bytes, or was cut")
        return answer.body


def _keys_url(entry: OidcIssuer, data: bytes) -> WebUrl:
    """Return where a discovery document says that the keys are, if it is this issuer's."""
    document = parse_bounded(data, max_bytes=MAX_KEY_SET_BYTES, where="discovery")
    if not isinstance(document, dict) or document.get("issuer") != entry.issuer:
        raise InvalidInput("discovery: the document is another issuer's: its issuer must be the one of the directory")
    found = document.get("jwks_uri")
    if not isinstance(found, str):
        raise InvalidInput("discovery: it has no jwks_uri")
    url = parse_url(found)
    if url.scheme == "http" and not entry.issuer.startswith("http://"):
        raise InvalidInput("discovery: jwks_uri must be https://")
    return url


def _refused(url: WebUrl, address: Address, *, private: bool) -> str:
    """Return why keys are not fetched from an address, "" if they may be."""
    if url.scheme == "http" and not address.is_loopback:
        return f"{address} is not loopback, and only there is http:// used"
    if problem := refused_address(address, private=True):
        return problem
    if not private and refused_address(address, private=False):
        return f"{address} is a private address, and the issuer's word alone leads there: name it as jwks_uri"
    return ""


def read_key_file(path: str) -> bytes:
    """Return what a `jwks_file` holds; raise `InvalidConfig` if it cannot be read, or others could write it."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise InvalidConfig(f"{path}: others can write these keys, and so be anybody: run chmod go-w on it")
            return file.read(MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(f"{path}: the keys cannot be read: {error.strerror}") from None


def check_issuers(issuers: Mapping[str, OidcIssuer]) -> None:
    """Raise `InvalidConfig` for what of the issuers can be seen to be wrong without asking any of them."""
    for name, entry in issuers.items():
        try:
            for url in (entry.issuer, entry.jwks_uri):
                if url is not None:
                    parse_url(url)
            if entry.jwks_file is not None and not read_key_set(read_key_file(entry.jwks_file), entry.algorithms).keys:
                raise InvalidInput(f"{entry.jwks_file}: no key in it may be used with {', '.join(entry.algorithms)}")
            if entry.ca_file is not None and not os.access(entry.ca_file, os.R_OK):
                raise InvalidInput(f"{entry.ca_file}: the certificates cannot be read")
        except (InvalidInput, InvalidConfig) as error:
            raise InvalidConfig(f"directory: oidc.{name}: {error.message}") from None
