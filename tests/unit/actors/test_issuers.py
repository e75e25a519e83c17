"""Fetching an issuer's keys, from one on loopback that rotates, takes back, goes away and answers badly."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from airside.actors.ingress import Ingress
from airside.actors.issuers import MAX_WAITING, KeyFetcher, check_issuers, read_key_file
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import FOLLOW, GIVE_VOTE, OFFER, FeedRequest, PresentedVote
from airside.actors.settings import Settings
from airside.directory import Directory, load_directory
from airside.stack.errors import AuthRefused, InvalidConfig
from airside.stack.operations.messages import OfferRequest
from airside.stack.security.authenticator import Authenticator, issue_token
from airside.stack.security.issuer_keys import FAILURE_KEPT_S, MIN_BETWEEN_S, keys_of
from airside.stack.security.key_sets import MAX_KEY_SET_BYTES
from airside.tools.builtin.addresses import Address
from tests import on_wire
from tests.helpers import KEY
from tests.oidc_issuer import DISCOVERY, KEYS, LocalIssuer, Signer, an_issuer, certificate
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    """An issuer that publishes one key."""
    with an_issuer() as made:
        yield made


def directory_of(url: str, *lines: str) -> Directory:
    """Return a directory that pins it, with further lines in its entry."""
    more = "".join(f"    {line}\n" for line in lines)
    return load_directory(
        f"oidc:\n  corp:\n    issuer: {url}\n    audience: airside\n    algorithms: [RS256]\n    tenant: acme\n{more}"
        "tenants: {acme: {principals: {ana: {issuers: [corp], roles: [auditor]}, bot: {}}}}\n"
    )


class World:
    """A fetcher and its authenticator, with a clock that a test sets."""

    def __init__(self, directory: Directory, **network: Any) -> None:
        self.now_s = 0.0
        (self.keys,) = keys_of(directory.oidc, lambda: self.now_s)
        self.auth = Authenticator(directory, public_of(SIGNER), [self.keys])
        self.fetcher = KeyFetcher(self.auth, **network)

    async def identify(self, credential: str) -> str:
        """Return the principal, or the reason of a refusal, as Ingress finds it."""
        await self.fetcher.prepare(credential)
        try:
            return self.auth.identify(credential, int(time.time())).principal
        except AuthRefused as refusal:
            return refusal.reason


# Where keys are.


async def test_keys_are_found_by_discovery_and_then_known(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    assert [await world.identify(issuer.signer().token()) for _ in range(3)] == ["ana"] * 3
    assert issuer.asked == [DISCOVERY, KEYS]
    assert world.fetcher.stats() == {"issuers": {"corp": {"keys": 1, "problem": ""}}}


async def test_keys_are_where_the_directory_says_and_no_discovery_is_asked_for(issuer: LocalIssuer) -> None:
    issuer.answers[DISCOVERY] = 500
    world = World(directory_of(issuer.url, f"jwks_uri: {issuer.url.removesuffix('/realms/shop')}{KEYS}"))
    assert await world.identify(issuer.signer().token()) == "ana" and issuer.asked == [KEYS]


async def test_keys_of_a_file_need_no_issuer(tmp_path: Path) -> None:
    signer = Signer("https://sso.example")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [signer.jwk()]}))
    directory = directory_of(signer.issuer, f"jwks_file: {path}")
    world = World(directory)
    check_issuers(directory.oidc)
    assert await world.identify(signer.token()) == "ana"
    path.write_text('{"keys": []}')
    world.now_s = world.keys.entry.refresh_s
    assert await world.identify(signer.token()) == "auth_untrusted"
    path.chmod(0o666)
    world.now_s *= 2
    await world.identify(signer.token(header={"kid": "new"}))
    assert "chmod go-w" in world.keys.problem
    path.unlink()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_key_file(str(path))


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"issuer": "https://other.example"}, "another issuer's"),
        ({"issuer": None}, "another issuer's"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "neither https nor http"),
        ({"jwks_uri": "http://10.0.0.1/keys"}, "not loopback"),
        ({"jwks_uri": "https://10.0.0.1/keys"}, "name it as jwks_uri"),
        ({"jwks_uri": "https://169.254.169.254/latest"}, "credentials"),
        ({"jwks_uri": "https://user@sso.example/"}, "user information"),
    ],
)
async def test_a_discovery_document_leads_nowhere_else(
    issuer: LocalIssuer, document: dict[str, Any], problem: str
) -> None:
    found = json.loads(bytes(issuer.answer(DISCOVERY)))  # type: ignore[arg-type]
    issuer.answers[DISCOVERY] = json.dumps({**found, **document}).encode()
    world = World(directory_of(issuer.url))
    assert await world.identify(issuer.signer().token()) == "auth_keys_unavailable"
    assert problem in world.keys.problem and issuer.asked == [DISCOVERY]


async def test_an_issuer_over_tls_has_its_keys_over_tls_and_its_certificate_is_checked() -> None:
    """The name that a connection is verified by is the URL's, whatever address it has."""
    seen: list[tuple[str, int, str, str]] = []

    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address("10.1.2.3")]

    async def connect(address: str, port: int, tls_host: str, ca_file: str) -> Any:
        seen.append((address, port, tls_host, ca_file))
        raise ssl.SSLCertVerificationError("certificate verify failed")

    world = World(directory_of("https://sso.example/x", "ca_file: /ca.pem"), resolve=resolve, connect=connect)
    assert await world.identify(Signer("https://sso.example/x").token()) == "auth_keys_unavailable"
    assert seen == [("10.1.2.3", 443, "sso.example", "/ca.pem")] and "verify failed" in world.keys.problem


async def test_a_certificate_of_the_issuers_name_by_who_vouches_for_it_is_believed_and_no_other(tmp_path: Path) -> None:
    """On this machine, whose resolver says that `localhost` is here."""
    for host, ca, good in (("localhost", True, True), ("localhost", False, False), ("other.example", True, False)):
        context, path = certificate(tmp_path, host)
        with an_issuer(context, "localhost") as issuer:
            world = World(directory_of(issuer.url, *([f"ca_file: {path}"] if ca else [])))
            found = await world.identify(issuer.signer().token())
            assert found == ("ana" if good else "auth_keys_unavailable"), (host, ca)
            assert good or "certificate" in world.keys.problem
            assert bool(issuer.asked) is good


async def test_a_name_that_says_loopback_and_is_not_is_not_asked() -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1"), ip_address("10.1.2.3")]

    async def connect(*_: Any) -> Any:
        raise AssertionError

    world = World(directory_of("http://localhost:8080"), resolve=resolve, connect=connect)
    assert await world.identify(Signer("http://localhost:8080").token()) == "auth_keys_unavailable"
    assert "not loopback" in world.keys.problem


# How keys are answered.


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (404, "status 404"),
        (503, "status 503"),
        ("http://127.0.0.1:1/keys", "redirects are not followed"),
        (DISCOVERY, "redirects are not followed"),
        (b"<html>", "keys: "),
        (b"", "keys: "),
        (b'{"keys": {}}', "no JWK Set"),
        (b'{"keys": [' + b",".join([b"{}"] * 1000) + b"]}", "1,000 keys"),
        (b" " * (MAX_KEY_SET_BYTES + 1), "over 262,144 bytes"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_what_is_no_answer_costs_no_key_that_is_known(
    issuer: LocalIssuer, answer: int | bytes | str, problem: str
) -> None:
    world = World(directory_of(issuer.url))
    assert await world.identify(issuer.signer().token()) == "ana"
    issuer.answers[KEYS] = answer
    world.now_s = world.keys.entry.refresh_s
    assert await world.identify(issuer.signer().token()) == "ana" and problem in world.keys.problem
    fresh = World(directory_of(issuer.url))
    assert await fresh.identify(issuer.signer().token()) == "auth_keys_unavailable"


@pytest.mark.parametrize("way", ["hangs", "drips"])
async def test_an_issuer_that_never_ends_its_answer_costs_its_own_tokens_a_moment(
    issuer: LocalIssuer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airside.actors.issuers.FETCH_TIMEOUT_S", 0.2)
    if way == "hangs":
        issuer.open.clear()
    else:
        issuer.drip = True
    world = World(directory_of(issuer.url))
    assert await world.identify(issuer.signer().token()) == "auth_keys_unavailable"
    assert "no answer within 0.2 s" in world.keys.problem


async def test_an_issuer_that_is_away_is_waited_for_once_and_its_keys_go_on_until_they_are_too_old() -> None:
    with an_issuer() as issuer:
        world = World(directory_of(issuer.url))
        token = issuer.signer().token()
        assert await world.identify(token) == "ana"
    world.now_s = world.keys.entry.refresh_s
    assert await world.identify(token) == "ana" and "no connection" in world.keys.problem
    world.now_s = world.keys.entry.keys_max_age_s - 1
    assert await world.identify(token) == "ana"
    world.now_s += 1
    assert await world.identify(token) == "auth_keys_unavailable"


# When keys are fetched.


async def test_a_new_key_is_known_at_its_first_token_and_one_that_was_taken_back_at_the_refresh(
    issuer: LocalIssuer,
) -> None:
    world = World(directory_of(issuer.url))
    old, new = issuer.signer("k1").token(), issuer.signer("k2", number=1).token()
    assert await world.identify(old) == "ana"
    issuer.publish(issuer.signer("k1"), issuer.signer("k2", number=1))
    world.now_s += MIN_BETWEEN_S
    assert await world.identify(new) == "ana"
    issuer.publish(issuer.signer("k2", number=1))
    assert await world.identify(old) == "ana"  # it is known, and it is not yet time to look
    world.now_s += world.keys.entry.refresh_s
    assert await world.identify(old) == "auth_untrusted"
    assert await world.identify(new) == "ana"


async def test_garbage_has_keys_fetched_no_more_often_than_that(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    good = issuer.signer().token()
    assert await world.identify(good) == "ana"
    for turn in range(1, 4):
        world.now_s += MIN_BETWEEN_S
        garbage = [issuer.signer().token(header={"kid": f"{turn}-{index}"}) for index in range(100)]
        reasons = await asyncio.gather(*(world.identify(each) for each in garbage))
        assert set(reasons) == {"auth_untrusted"} and issuer.asked.count(KEYS) == 1 + turn
    assert await world.identify(good) == "ana"


async def test_an_issuer_that_is_away_is_not_asked_by_every_token(issuer: LocalIssuer) -> None:
    issuer.answers[DISCOVERY] = 503
    world = World(directory_of(issuer.url))
    for _ in range(5):
        assert await world.identify(issuer.signer().token()) == "auth_keys_unavailable"
    assert issuer.asked == [DISCOVERY]
    del issuer.answers[DISCOVERY]
    world.now_s += MIN_BETWEEN_S
    assert await world.identify(issuer.signer().token()) == "ana"


async def test_keys_that_are_half_their_time_old_are_fetched_while_their_tokens_go_on(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    token = issuer.signer().token()
    assert await world.identify(token) == "ana"
    issuer.open.clear()
    world.now_s = world.keys.entry.refresh_s / 2
    assert await asyncio.wait_for(world.identify(token), 3) == "ana"
    issuer.open.set()
    while world.fetcher._fetches:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    world.now_s += world.keys.entry.refresh_s / 2 - 1
    assert await world.identify(token) == "ana" and issuer.asked.count(KEYS) == 2


async def test_while_one_waits_for_keys_nobody_else_does(issuer: LocalIssuer) -> None:
    """Neither who has the stack's own token, nor a token of the issuer whose key is known."""
    world = World(directory_of(issuer.url))
    known = issuer.signer().token()
    assert await world.identify(known) == "ana"
    world.now_s += MIN_BETWEEN_S
    issuer.open.clear()
    new = issuer.signer("k2", number=1)
    waiting = asyncio.ensure_future(world.identify(new.token()))
    await asyncio.sleep(0)
    local = issue_token(pem_of(SIGNER), tenant="acme", principal="bot", now_s=int(time.time()))
    assert [await asyncio.wait_for(world.identify(each), 3) for each in (known, local)] == ["ana", "bot"]
    assert await asyncio.wait_for(world.identify("junk"), 3) == "auth_malformed"
    assert not waiting.done()
    issuer.publish(issuer.signer(), new)
    issuer.open.set()
    assert await waiting == "ana"


async def test_who_is_gone_takes_the_fetch_from_nobody(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    issuer.open.clear()
    one, other = (asyncio.ensure_future(world.identify(issuer.signer().token(jti=each))) for each in "ab")
    await asyncio.sleep(0)
    one.cancel()
    issuer.open.set()
    assert await other == "ana" and issuer.asked == [DISCOVERY, KEYS]


async def test_no_more_than_so_many_wait(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    issuer.open.clear()
    signer = issuer.signer()
    waiting = [asyncio.ensure_future(world.fetcher.prepare(signer.token())) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(world.identify(signer.token(jti="more")), 3) == "auth_keys_unavailable"
    issuer.open.set()
    await asyncio.gather(*waiting)
    assert world.fetcher._waiting == 0


async def test_a_fetch_that_failed_is_tried_again_beside_what_goes_on(issuer: LocalIssuer) -> None:
    world = World(directory_of(issuer.url))
    token = issuer.signer().token()
    assert await world.identify(token) == "ana"
    issuer.answers[KEYS] = 503
    world.now_s = world.keys.entry.refresh_s
    assert await world.identify(token) == "ana"
    issuer.open.clear()
    world.now_s += FAILURE_KEPT_S - 1
    assert await asyncio.wait_for(world.identify(token), 3) == "ana"
    issuer.open.set()


# At the start, and in Ingress.


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["jwks_file: /nowhere/keys.json"], "cannot be read"),
        (["ca_file: /nowhere/ca.pem"], "cannot be read"),
        (["jwks_uri: https://256.1.1.1/"], "is a number"),
    ],
)
def test_what_needs_no_issuer_to_be_seen_is_said_at_the_start(lines: list[str], says: str) -> None:
    with pytest.raises(InvalidConfig, match=r"directory: oidc\.corp: .*") as caught:
        check_issuers(directory_of("https://sso.example", *lines).oidc)
    assert says in caught.value.message


def test_a_file_without_a_key_that_can_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [Signer("x", algorithm="EdDSA").jwk()]}))
    with pytest.raises(InvalidConfig, match="no key in it may be used with RS256"):
        check_issuers(directory_of("https://sso.example", f"jwks_file: {path}").oidc)


async def test_ingress_takes_tokens_of_an_issuer_wherever_it_takes_one(issuer: LocalIssuer) -> None:
    config = LayerConfig(Settings(), Path("unused"), seal_key=KEY)
    it = Ingress(config, directory_of(issuer.url), public_of(SIGNER), served=[])
    await it.ready()
    token, stranger = issuer.signer().token(), issuer.signer().token(sub="zoe")
    offer = await on_wire.ask(it, OFFER, OfferRequest(credential=token))
    assert (offer.tenant, offer.principal) == ("acme", "ana")
    assert (await on_wire.ask(it, OFFER, OfferRequest(credential=stranger))).code == "principal_unknown"
    page = await on_wire.ask(it, FOLLOW, FeedRequest("", 0.0, None, stranger))
    assert page.code == "principal_unknown"
    vote = PresentedVote(credential=token, approval_id="x", verdict="maybe", arguments=b"", note="")
    assert (await on_wire.ask(it, GIVE_VOTE, vote)).code == "invalid"  # after it was found out who votes
    assert issuer.asked == [DISCOVERY, KEYS]
    assert (await it.stats())["issuers"]["corp"] == {"keys": 1, "problem": ""}
