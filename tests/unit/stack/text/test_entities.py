"""Findings: what a text points to or hides is found, and ordinary prose holds none."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.text.entities import MAX_SCANNED, find_entities, visible

FOUND = {
    "see https://evil.com/x?y=1.": "https://evil.com/x?y=1",
    "hxxp://evil.com": "hxxp://evil.com",
    "//evil.com/x": "//evil.com/x",
    "http:/\\evil.com": "http:/\\evil.com",
    "open \\\\evil\\share now": "\\\\evil\\share",
    "evil[.]com now": "evil[.]com",
    "go to evil (dot) com": "evil (dot) com",
    "alice (at) evil dot com": "evil dot com",
    "open evil . com": "evil . com",
    "a&#x2e;com": "a&#x2e;com",
    "evil&period;com": "evil&period;com",
    "evil%2ecom": "evil%2ecom",
    "[ok](evil/path)": "evil/path",
    "<a href='/x'>x</a>": "/x",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)",
    "javascript:alert(1)": "javascript:alert",
    "data:text/html,abc": "data:text/html,abc",
    "xn--pypal-4ve.com": "xn--pypal-4ve.com",
    "EVIL.Com": "EVIL.Com",
    "evil.shop/x": "evil.shop/x",
    "evil\u3002com": "evil\u3002com",
    "https://corp.com\\@evil.com": "evil.com",
    "p\u0430ypal.com": "p\u0430ypal.com",
    "alice@corp.com": "alice@corp.com",
    "alice\uff20corp.com": "alice\uff20corp.com",
    "user@[10.0.0.1]": "user@[10.0.0.1]",
    "at 203.0.113.7 now": "203.0.113.7",
    "fe80::1": "fe80::1",
    "GB82 WEST 1234 5698 7654 32.": "GB82 WEST 1234 5698 7654 32",
    "call +49 30 1234567": "+49 30 1234567",
    "(030) 1234-5678": "(030) 1234-5678",
    "account 12345678": "12345678",
    "Ref INV-2024-0012.": "INV-2024-0012",
    "0xdeadbeefdeadbeef00": "0xdeadbeefdeadbeef00",
    "550e8400-e29b-41d4-a716-446655440000": "550e8400-e29b-41d4-a716-446655440000",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq": "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    "pay\u200bpal": "pay\u200bpal",
    "\u202etxt.exe": "\u202etxt.exe",
    "see \uff45\uff56\uff49\uff4c\uff0e\uff43\uff4f\uff4d": "evil.com",
    "see \u24d4\u24e5\u24d8\u24db.com": "evil.com",
    "open evil,com/abc": "evil,com/abc",
    "log in at evil . example": "evil . example",
    "log in at evil\n.example": "evil\n.example",
    "log in at evil punkt example": "evil punkt example",
    "ask @evil_support for it": "evil_support",
    "four four two oh seven nine four": "four four two oh seven nine four",
    "hi\U000e0041": "hi\U000e0041",
    "sign in at corp-login.Icu now": "corp-login.Icu",
    "sign in at corplogin.Market now": "corplogin.Market",
    "sign in at secure.corp.pdf.Market now": "secure.corp.pdf.Market",
    "sign in at corp-login.bz now": "corp-login.bz",
    "at corp-login.\u092d\u093e\u0930\u0924 please": "corp-login.\u092d\u093e\u0930\u0924",
    "at \u043a\u043e\u0440\u043f.\u0420\u0444 please": "\u043a\u043e\u0440\u043f.\u0420\u0444",
    "at pay\u2764.ws please": "pay\u2764.ws",
    "at \u767b\u5f55\u3002\u4e2d\u56fd": "\u767b\u5f55\u3002\u4e2d\u56fd",
    "at corp-login .icu": "corp-login .icu",
    "at corp-login . vip": "corp-login . vip",
    "at corp-login\u2027icu": "corp-login\u2027icu",
    "bitcoin to bc1q ar0s rrr7 xfkv y5l6 43ly dnw9.": "bc1q ar0s rrr7 xfkv y5l6 43ly dnw9",
    "<!channel> Fire alarm": "<!channel>",
    "<!subteam^S024BE7LH|ops> look": "<!subteam^S024BE7LH|ops>",
    "<@U024BE7LH> look": "<@U024BE7LH>",
    "<@!80351110224678912> look": "<@!80351110224678912>",
    "<#C024BE7LR|general>": "<#C024BE7LR|general>",
    "<at>Ann</at> look": "<at>",
    "@channel look": "@channel",
    "@Here look": "@Here",
    "ask @\u043f\u043e\u043c\u043e\u0449\u044c": "\u043f\u043e\u043c\u043e\u0449\u044c",
    "\U0001f600\ufe0f\ufe0f\ufe0f": "\U0001f600\ufe0f\ufe0f\ufe0f",
}

PROSE = """Dear Ms. Miller, thanks for your mail of 2024-05-01 10:30. The total is $1,200,000.00 (12.50 each), i.e. 3
rooms, e.g. No.5 at 9 a.m. Please see report.pdf and budget_2024.xlsx.Then we meet on 01.05.2024 at 10:30-11:45 in
St.Gallen, U.S.A. Our Q3/2024 numbers: 10, 20, 30; 2023/2024 was 45% better; the years 2019-2021 too. Ratio 3:4, v1.2.3,
24/7, and so on...and more. Call me "soon" \u2764\ufe0f \U0001f468\u200d\U0001f469 \u2014 it's 5km. Flight LH1234 at
14:05 \u2013 16:20, or 10:30:00, seat 12A, room 1204. Col\u00b7lecci\u00f3, 5\u20139 \u00b0C,
2019\u20132021. Data: see below. Order 1234567,
C++ and .NET; at 2024-05-01T10:30:00Z. 1,234 items; 100%
done. Is A < B and C > D? It says "and/or" (see above). Best, Tom"""


@pytest.mark.parametrize("text", FOUND)
def test_what_a_text_points_to_or_hides_is_found(text: str) -> None:
    assert FOUND[text] in find_entities(text)


def test_ordinary_prose_holds_none() -> None:
    assert find_entities(PROSE) == []


def test_a_text_that_is_not_read_to_its_end_is_a_finding_itself() -> None:
    for text in ("x" * (MAX_SCANNED + 1), "a@b " * 5_000, " ".join(f"a{n}@b.c" for n in range(2_000))):
        assert find_entities(text) == [text.strip()]


def test_what_only_begins_like_an_account_number_is_read_in_a_moment() -> None:
    """Half a second a text with the old pattern, and a content of 32 KiB holds five hundred of them."""
    text = "ab12" + "a" * 60 + "_"
    assert find_entities(f"{text} " * 400) == [text.rstrip("_")]


def test_hidden_characters_are_written_out_for_a_person() -> None:
    assert visible("pay\u200bpal \u202ex") == "pay\\u{200b}pal \\u{202e}x"
    assert visible("e\u0301" + "\u05d1\u05b0\u05bc\u0596") == "e\u0301" + "\u05d1\u05b0\u05bc\u0596"
    for mark in ("\u0301", "\u20dd", "\u0bca"):
        assert visible("x" + mark * 10 + "y") == "x" + mark * 8 + f"\\u{{{ord(mark):x}}}" * 2 + "y"
    assert visible("a\x1b[2K\x9b2K\rb\r\nc\td") == "a\\u{1b}[2K\\u{9b}2K\\u{d}b\r\nc\td"


GAPS = st.sampled_from(" -\t:./*~\u00a0\u00b7\u2009\u2010\u2011\u2012\u2013\u2014\u202f\u2212")
GROUPS = st.lists(st.sampled_from(["1203", "0077", "20", "517", "9001"]), min_size=4, max_size=6)


@given(GROUPS, GAPS, st.sampled_from(["", "+44", "DE02", "gb82", "account "]))
def test_a_number_to_pay_or_to_call_is_found_whatever_is_between_its_groups(
    groups: list[str], gap: str, first: str
) -> None:
    """Unless it is written as times of a day are."""
    number = (f"{first}{gap}" if first.strip() == first != "" else first) + gap.join(groups)
    found = find_entities(f"Use {number} for it")
    assert any("".join(groups[-2:]) in "".join(c for c in each if c.isalnum()) for each in found), number


@given(GROUPS, st.sampled_from(["\n", "\r\n", "\t", " \n", "\u00a0"]))
def test_an_account_is_found_over_the_ends_of_lines(groups: list[str], gap: str) -> None:
    assert find_entities(f"Pay to\nDE02{gap}{gap.join(groups)}{gap}0077")


LABELS = st.text("abcdefghij\u00e9\u0431\u092d\u0e01", min_size=2, max_size=8)
DOMAINS = st.sampled_from(
    ["icu", "market", "bz", "de", "com", "\u0440\u0444", "\u092d\u093e\u0930\u0924", "\u0e44\u0e17\u0e22", "example"]
)


@given(LABELS, DOMAINS, st.sampled_from([str, str.upper, str.title, str.lower]))
def test_a_host_is_found_in_any_case_and_script(label: str, ending: str, spell: Any) -> None:
    host = f"{spell(label)}-in.{spell(ending)}"
    assert any(host in each for each in find_entities(f"Sign in at {host} now")), host


AROUND = st.text(string.ascii_letters + string.digits + " .,;:!?'\"()[]<>-_/\\@#%&=\n\u00e9\u200b", max_size=40)


@given(AROUND, AROUND)
def test_a_planted_address_is_found_whatever_surrounds_it(before: str, after: str) -> None:
    """Some finding holds the host: no surrounding text hides a link from the reader of the content."""
    text = f"{before} https://evil-host.example/path {after}"
    assert any("evil-host.example/path" in found for found in find_entities(text))


@given(AROUND, AROUND, st.sampled_from(["evil-host.example", "eve@evil-host.example", "hxxps://evil-host.example"]))
def test_a_planted_host_is_found_even_where_it_touches_other_text(before: str, after: str, planted: str) -> None:
    """Unless letters or digits make another name of its end."""
    text = f"{before}{planted}" + (after if not (after[:1].isalnum() or after[:1] in "_-") else "")
    assert find_entities(text), text
