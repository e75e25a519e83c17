"""When keys of an issuer are believed, when they are fetched, and that garbage has them fetched no more often."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from airside.stack.issuers import OidcIssuer
from airside.stack.security.issuer_keys import FAILURE_KEPT_S, MIN_BETWEEN_S, IssuerKeys, Need, keys_of
from airside.stack.security.key_sets import KeySet, read_key_set
from tests.oidc_issuer import jwk_of, private_key

ENTRY = OidcIssuer(issuer="https://sso.example", audience="airside", algorithms=["EdDSA"], tenant="acme")
REFRESH_S, MAX_AGE_S = ENTRY.refresh_s, ENTRY.keys_max_age_s


def key_set(*kids: str) -> KeySet:
    """Return a set of keys of these ids."""
    jwks = [jwk_of(private_key("EdDSA"), kid, "EdDSA") for kid in kids]
    return read_key_set(json.dumps({"keys": jwks}).encode(), ["EdDSA"])


class World:
    """An issuer's keys, and the clock they go by."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        (self.keys,) = keys_of({"corp": ENTRY}, lambda: self.now_s)

    def fetch(self, *kids: str, took_s: float = 0.0) -> bool:
        """Fetch these keys."""
        self.keys.begin()
        self.now_s += took_s
        return self.keys.take(key_set(*kids))

    def fail(self) -> None:
        """Fail to fetch keys."""
        self.keys.begin()
        self.keys.fail("it is away")

    def needs(self, after_s: float, kid: str = "k1") -> Need:
        """Say what is needed so much later."""
        self.now_s += after_s
        return self.keys.need(kid)


def test_without_keys_everything_waits_for_them() -> None:
    world = World()
    assert world.keys.believed() is None and world.needs(0) is Need.NOW and world.keys.may_fetch()


def test_keys_are_fetched_beside_what_goes_on_and_waited_for_when_they_are_due() -> None:
    world = World()
    world.fetch("k1")
    assert [world.needs(after) for after in (0, REFRESH_S / 2 - 1, 1, REFRESH_S / 2)] == [
        Need.NONE,
        Need.NONE,
        Need.SOON,
        Need.NOW,
    ]


def test_a_key_that_was_taken_back_is_not_believed_once_the_others_are_there() -> None:
    world = World()
    world.fetch("k1", "k2")
    assert world.fetch("k2")
    assert list(world.keys.believed().keys) == ["k2"] and world.needs(0) is Need.NOW  # type: ignore[union-attr]
    world.fetch()
    assert world.keys.believed() is not None and not world.keys.believed().keys  # type: ignore[union-attr]


def test_keys_age_from_the_moment_at_which_their_fetch_began() -> None:
    world = World()
    world.fetch("k1", took_s=5)
    assert world.needs(REFRESH_S - 6) is Need.SOON and world.needs(1) is Need.NOW


def test_the_same_keys_are_the_same_set_so_that_nothing_is_checked_again() -> None:
    world = World()
    world.fetch("k1")
    before = world.keys.believed()
    world.now_s += REFRESH_S
    assert not world.fetch("k1") and world.keys.believed() is before and world.needs(0) is Need.NONE


def test_while_an_issuer_is_away_its_keys_go_on_and_nobody_waits_until_they_are_too_old() -> None:
    world = World()
    world.fetch("k1")
    world.now_s += REFRESH_S
    world.fail()
    assert world.needs(0) is Need.SOON and world.keys.problem == "it is away"
    assert world.needs(FAILURE_KEPT_S) is Need.NOW  # a fetch may be tried again before it is said
    world.now_s = 1_000.0 + MAX_AGE_S - 1
    world.fail()
    assert world.keys.believed() is not None and world.needs(0) is Need.SOON
    assert world.needs(1) is Need.NOW and world.keys.believed() is None


def test_an_unknown_key_has_them_fetched_once_in_a_while_whatever_came_of_it() -> None:
    world = World()
    for fetch in (lambda: world.fetch("k1"), lambda: world.fetch(), world.fail):
        world.now_s += MIN_BETWEEN_S
        assert world.keys.may_fetch()
        fetch()
        assert world.needs(0, "other") is Need.NOW and not world.keys.may_fetch()
        world.now_s += MIN_BETWEEN_S - 1
        assert not world.keys.may_fetch()


def test_a_clock_that_was_set_back_has_keys_fetched_and_believes_none_meanwhile() -> None:
    world = World()
    world.fetch("k1")
    world.now_s -= 500
    assert world.keys.believed() is None and world.keys.may_fetch() and world.needs(0) is Need.NOW


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask other"]),
        st.integers(0, 2 * REFRESH_S),
        st.booleans(),
        st.sampled_from([("k1",), ("k2",), ("k1", "k2"), ()]),
    ),
    max_size=40,
)


@given(actions=ACTIONS)
def test_whatever_is_asked_fetches_are_apart_and_no_key_is_believed_for_longer_than_it_may_be(
    actions: list[tuple[str, int, bool, tuple[str, ...]]],
) -> None:
    """As a fetcher does it: what needs keys has them fetched if that may be, and then goes on."""
    world = World()
    begun: list[float] = []
    published: dict[str, float] = {}
    for asked, after_s, is_up, kids in actions:
        world.now_s += after_s
        need = world.keys.need("k1" if asked == "ask" else "k9")
        if need is not Need.NONE and world.keys.may_fetch():
            begun.append(world.now_s)
            if is_up:
                world.fetch(*kids)
                published = dict.fromkeys(kids, world.now_s)
            else:
                world.fail()
        elif need is Need.NOW:
            age_s = world.now_s - (begun[-1] if begun else 0)
            assert age_s < MIN_BETWEEN_S
        keys = world.keys.believed()
        for kid in keys.keys if keys else ():
            assert world.now_s - published[kid] < MAX_AGE_S
    assert all(later - earlier >= MIN_BETWEEN_S for earlier, later in pairwise(begun))


def test_each_entry_has_keys_of_its_own() -> None:
    one, other = keys_of({"one": ENTRY, "other": ENTRY}, lambda: 0.0)
    one.begin()
    one.take(key_set("k1"))
    assert isinstance(other, IssuerKeys) and other.believed() is None
