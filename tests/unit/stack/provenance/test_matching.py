"""Occurrence: a value is in a text as a whole token, or it is not in it."""

from __future__ import annotations

import string
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.exclusions import without_exclusions
from airside.stack.provenance.matching import SearchableText, numbers_in

PRESENT: list[tuple[Any, Any]] = [
    ("alice@corp.com", "Write to alice@corp.com."),
    ("Alice@Corp.COM", "write to alice@corp.com, please"),
    ("Alice", "Pay Alice's invoice"),
    ("Tom & Jerry Ltd", "pay Tom & Jerry\n Ltd today"),
    ("/home/user/report.txt", "see /home/user/report.txt"),
    ("https://corp.com/", "see corp.com"),
    ("corp.com", "see https://corp.com/ now"),
    ("https://corp.com/a", "<https://corp.com/a>"),
    ("DE89370400440532013000", "to DE89 3704 0044 0532 0130 00 today"),
    ("DE89 3704 0044 0532 0130 00", "to de89370400440532013000"),
    ("+49 30 1234567", "call +49-30-1234567"),
    ("FL-20871", "FL-20871 120 EUR"),
    (12, "room 12, floor 3"),
    (1200.5, "$1,200.50"),
    (1200.5, "1.200,50 EUR"),
    (1200.5, "1200.5"),
    (1_000_000, "1,000,000"),
    (500, "EUR500 or US$500"),
    (500, "500EUR"),
    (2.5, "2.5%"),
    (-500, "it is -500"),
    (2, "Two tickets"),
    ("1200.50", "$1,200.50"),
    (4711, {"id": 4711}),
    ("4711", {"id": 4711}),
    (3.0, ["x", {"n": 3}]),
    ("key", {"key": 1}),
    ("USD", "$500"),
    ("555-123-4567", "call (555) 123-4567"),
    ("+15551234567", "call +1 555.123.4567, now"),
    ("https://localhost", "open https://localhost/ now"),
    ("https://localhost:3000/a", "open localhost:3000/a"),
    ("https://10.0.0.7", "the printer at 10.0.0.7"),
    ("https://invoice.zip", "download <https://invoice.zip>"),
    ("https://www.invoice.zip", "look at www.invoice.zip"),
    ("https://b\u00fccher.example", "look at b\u00fccher.example"),
    ("https://bob@corp.example/a", "open https://bob@corp.example/a"),
    ("EUR", "twelve euros"),
    ("a@x.com, b@x.com", "to a@x.com and b@x.com"),
]

ABSENT: list[tuple[Any, Any]] = [
    ("alice@corp.co", "alice@corp.com"),
    ("lice@corp.com", "alice@corp.com"),
    ("neil@corp.com", "o'neil@corp.com"),
    ("alice@corp.co", "alice@corp.co\u200bm"),
    ("alice@corp.com", "alice@corp.com\u0301"),
    ("corp.com", "alice@corp.com"),
    ("corp.com", "https://corp.com/x"),
    ("corp.com", "x=https://corp.com"),
    ("alice@corhttps://p.com", "alice@corp.com"),
    ("/home/user", "/home/user/report.txt"),
    ("report.txt", "/home/user/report.txt"),
    ("/HOME/user", "/home/user"),
    ("C:\\Users", "c:\\users"),
    ("a.b", "x..a.b"),
    ("BK-7781", "BK-77812"),
    ("37040044", "DE89 3704 0044 0532 0130 00"),
    ("1234 9876", "5550 1234 9876 5432"),
    (5550, "5550 1234 9876 5432"),
    (12, "3125"),
    (12, "12:30"),
    (12, "A12"),
    (2024, "2024-05-01"),
    (-500, "500"),
    (500, "-500"),
    (5, "10-5"),
    (7, "007"),
    ("7", "007"),
    (1200, "1.200"),
    (15, "1,5"),
    ("K", "\u212a"),
    ("\u212aing", "King"),
    ("status", "\uff53tatus"),
    ("paypal", "p\u0430ypal"),
    ("https://report", "write the report"),
    ("HTTPS://report/", "write the report"),
    ("https://localhost", "start localhost"),
    ("https://invoice.zip", "save invoice.zip"),
    ("https://readme.md/", "read readme.md"),
    ("https://fees/draft.pdf", "publish fees/draft.pdf"),
    ("https://bob@corp.example", "tell bob@corp.example"),
    ("https://corp.example:80@evil.example", "see corp.example"),
    ("https://C1", "reserve C1"),
    ("https://1200.50", "pay 1200.50"),
    ("http://corp.com", "see corp.com"),
    ("//corp.com", "see corp.com"),
    ("ftp://corp.com", "see https://corp.com"),
    ("/", "this / that"),
    ("*", "a * b"),
    ("", "anything"),
    (True, "true"),
    (None, "null"),
    ("a b", ["a", "b"]),
    ("USD", "A$500 or 500 EUR"),
    ("CAD", "$500"),
    ("55512345", "call (555) 123-45 67"),
    ("a@x.com, eve@y.com", "to a@x.com and b@x.com"),
    ("a@x.com;b@x.com", "to a@x.com and b@x.com"),
]


@pytest.mark.parametrize(("value", "text"), PRESENT)
def test_a_whole_token_occurs(value: Any, text: Any) -> None:
    """What stands alone is found, however it is cased, grouped or spaced."""
    assert SearchableText(text).has(value)


@pytest.mark.parametrize(("value", "text"), ABSENT)
def test_a_part_of_a_longer_token_does_not_occur(value: Any, text: Any) -> None:
    """Neither does a look-alike, nor what only means the same."""
    assert not SearchableText(text).has(value)


def test_a_whole_haystack_holds_its_values_and_no_parts_of_them() -> None:
    hay = SearchableText("main street 5", "DE89 3704 0044", 80, whole=True)
    assert all(hay.has(value) for value in ("Main Street 5", "DE8937040044", 80, "80"))
    assert not any(hay.has(value) for value in ("street", 5, 3704, "main"))


def test_a_text_too_long_to_be_looked_at_holds_nothing() -> None:
    assert not SearchableText("x " * 200_000 + "needle").has("needle")
    assert SearchableText("needle", "x " * 200_000).has("needle")


WORDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
ENDINGS = st.sampled_from(["", ".zip", ".md", ".pdf", ".docx", ".py", ".Mov", "/a.txt", "/", "@corp.example", ":x"])


@given(WORDS, ENDINGS, st.sampled_from(["https://", "HTTPS://", "http://", "ftp://", "//", "file:///", "mailto:"]))
def test_a_scheme_before_a_word_or_a_files_name_makes_a_link_that_is_not_there(
    word: str, ending: str, scheme: str
) -> None:
    """Unless the text has it as a link."""
    hay = SearchableText(f"Take {word}{ending} now", word, quotes=True)
    assert not hay.has(f"{scheme}{word}{ending}") and not hay.has(f"{scheme}{word}")
    assert SearchableText(f"Open {scheme}{word}/a now").has(f"{scheme}{word}/a")
    assert not SearchableText(f"{word}{ending}", word, whole=True).has(f"{scheme}{word}{ending}".rstrip("/"))


@given(WORDS, st.sampled_from(["com", "example", "co.uk", "org/a", "io:8443"]))
def test_a_host_is_one_with_https_and_without_it(word: str, ending: str) -> None:
    host = f"x{word}.{ending}"
    assert SearchableText(f"See {host}, please").has(f"https://{host}") and SearchableText(f"(https://{host})").has(
        host
    )


TOKEN = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
TEXT = st.text(string.printable + "\u00e9\u200b\u0301\u212a\u0430", max_size=60)


@given(TOKEN, TEXT, TEXT)
def test_what_stands_between_blanks_is_found(token: str, before: str, after: str) -> None:
    """Whatever surrounds it, unless digits around make one number of it."""
    text = f"{before}\n\n--- {token} ---\n\n{after}"
    assert SearchableText(text).has(token)


@given(TOKEN, TEXT)
def test_a_value_whose_characters_are_not_there_is_not_found(token: str, text: str) -> None:
    """Nothing is found that is not written there, but for numbers that are written another way."""
    if token.lower() not in "".join(text.split()).lower().replace("-", "") and not token.isdigit():
        assert not SearchableText(text).has(token)


@given(st.text("mnopqMNOPQ345", min_size=1, max_size=12), st.text("abXY19_", min_size=1, max_size=3))
def test_a_value_inside_a_longer_word_is_not_found(token: str, more: str) -> None:
    """On either side, directly or after a joiner."""
    for text in (token + more, more + token, f"{token}.{more}", f"{more}/{token}", f"{more}@{token}-{more}"):
        assert not SearchableText(text).has(token)


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(["{:,}", "{}", "{:,}.00", "${:,}", "EUR {}"]))
def test_a_whole_number_is_found_however_it_is_written(number: int, form: str) -> None:
    assert Decimal(number) in set(numbers_in(f"pay {form.format(number)} now".lower()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("DELETE FROM t", "Run `DELETE FROM t WHERE id = 7`."),
        ("plan.pdf", "Share \u201cQ3 plan.pdf\u201d."),
        ("/home/ann/My", 'Delete "/home/ann/My Documents/x.txt".'),
        ("Berlin", "Post to \u00abTeam Berlin\u00bb or 'Team Berlin'"),
        ("DE89370400440532013000", 'He wrote "pay to DE89 3704 0044 0532 0130 00".'),
        (900, 'He wrote "pay 900 EUR".'),
    ],
)
def test_a_part_of_what_is_quoted_does_not_occur_by_itself(value: Any, text: str) -> None:
    hay = SearchableText(text, quotes=True)
    assert not hay.has(value) and hay.has(value, parts=True) and SearchableText(text).has(value)
    assert SearchableText(f"{text} {value} too", quotes=True).has(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Team Berlin", 'Post to "Team Berlin", please'),
        ("https://corp.com/a", 'Open "https://corp.com/a".'),
        ("a.txt", "Open `a.txt` and `b.txt`"),
        ("bob", "Bob's and Ann's files, don't forget the users' 5\" disks"),
        ("bob@x.com", '{"to": "bob@x.com", "n": 5}'),
        (5, '{"to": "bob@x.com", "n": 5}'),
        (480, 'Pay "480 EUR"'),
    ],
)
def test_what_is_quoted_as_a_whole_occurs(value: Any, text: str) -> None:
    assert SearchableText(text, quotes=True).has(value)


@given(
    TOKEN,
    st.text(string.ascii_letters + " ", min_size=1, max_size=20),
    st.sampled_from(["`{}`", '"{}"', "\u201c{}\u201d"]),
)
def test_a_word_of_a_quoted_phrase_is_not_the_phrase(token: str, more: str, form: str) -> None:
    phrase = f"x{more}x {token}"
    hay = SearchableText(f"Run {form.format(phrase)} now", quotes=True)
    assert hay.has(phrase) and (not hay.has(token) or token.lower() in ("run", "now"))


def test_a_time_within_a_quoted_phrase_is_not_the_phrase() -> None:
    hay = SearchableText('Write "lunch at 7 pm on 2026-06-03" for "9:30" at 8:15', quotes=True)
    assert hay.has("09:30") and hay.has("08:15") and hay.has("19:00", parts=True)
    assert not hay.has("19:00") and not hay.has("2026-06-03")


@pytest.mark.parametrize(
    ("letter", "text", "is_meant"),
    [
        ("C", "reserve seat C", True),
        ("A", "take plan A, please", True),
        ("b", 'set the grade to "b"', True),
        ("x", {"drive": "x"}, True),
        ("a", "send a mail", False),
        ("A", "send a mail. A reply is due", False),
        ("A", "A mail", False),
        ("I", "what I said", False),
        ("s", "Ann's mail", False),
        ("y", "Ann y Bob", False),
        ("c", "reserve seat C", False),
    ],
)
def test_one_letter_of_a_request_occurs_only_where_it_is_meant(letter: str, text: Any, is_meant: bool) -> None:
    assert SearchableText(text, quotes=True).has(letter) is is_meant
    assert is_meant or SearchableText(text, quotes=True).has(letter, parts=True) or letter in "sc"


def test_a_channel_may_have_its_hash_or_not() -> None:
    assert SearchableText("post to ops-alerts").has("#ops-alerts") and SearchableText("post to #ops").has("ops")
    assert not SearchableText("post to ops-alerts").has("#ops") and not SearchableText("tell channel").has("@channel")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("general", "Post it to eng, not to general."),
        ("eve@x.com", "Use bob@x.com instead of eve@x.com"),
        ("eve@x.com", "Don't send it to eve@x.com!"),
        ("Team Berlin", 'Tell everybody except "Team Berlin"'),
        ("DE02120300000000202051", "Pay, but never to DE02 1203 0000 0000 2020 51"),
        ("DE02120300000000202051", "Zahle, aber nicht an DE02 1203 0000 0000 2020 51"),
    ],
)
def test_what_a_request_says_not_to_take_is_not_wanted(value: str, text: str) -> None:
    assert SearchableText(text).has(value) and not SearchableText(without_exclusions(text)).has(value)


@pytest.mark.parametrize(
    "text",
    [
        "Don't forget bob@x.com",
        "not only bob@x.com",
        "If it is not final, tell bob@x.com",
        "not to general, but to bob@x.com",
        "It isn't urgent: mail bob@x.com",
        "bob@x.com, not amy@x.com",
        "do-not-reply bob@x.com",
    ],
)
def test_what_stands_near_a_not_is_wanted(text: str) -> None:
    assert SearchableText(without_exclusions(text)).has("bob@x.com")


@given(TEXT, TOKEN)
def test_leaving_out_what_is_not_wanted_makes_nothing_occur(text: str, token: str) -> None:
    text = f"{text} not to {text}"
    assert SearchableText(text).has(token) or not SearchableText(without_exclusions(text)).has(token)


def test_blanks_around_a_value_make_it_another() -> None:
    assert not SearchableText("pay 480 to bob").has("480 ") and not SearchableText("pay 480 to bob").has("bob ")
