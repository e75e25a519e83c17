"""What a request says not to take is no value of the principal's, in whatever language and voice it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.exclusions import inputs_without_exclusions, without_exclusions
from airside.stack.provenance.languages import COMMON, CUES
from airside.stack.provenance.matching import SearchableText

_SAID = yaml.safe_load(Path(__file__).with_name("said.yaml").read_text())
SAID: dict[str, list[str]] = _SAID["said"]
UNLISTED: list[str] = _SAID["unlisted"]
ASKED: dict[str, str] = _SAID["asked"]
VALUES = ("Eve", "eve@evil.example", "DE02120300000000202051", "EVE-17", '"Eve & Sons"')
NEGATED = [(language, said) for language, each in SAID.items() for said in each]


def takes(text: str, value: str) -> bool:
    """Whether a value is one of a request's."""
    return SearchableText(without_exclusions(text), quotes=True).has(value.strip('"'))


@pytest.mark.parametrize(("language", "said"), NEGATED)
def test_what_is_said_not_to_be_taken_is_not_the_requests(language: str, said: str) -> None:
    for value in VALUES:
        assert not takes(said.format(value), value), value


@given(
    st.sampled_from(NEGATED), st.sampled_from(VALUES), st.sampled_from(sorted(ASKED)), st.sampled_from(VALUES),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_sentence_excludes_whatever_stands_around_it(
    negated: tuple[str, str], value: str, other: str, asked: str, is_first: bool, is_loud: bool
) -> None:
    """In another sentence before or after it, in any language, and in capitals."""
    said = negated[1].format(value)
    if value == asked:
        return
    said = said.upper().replace(value.upper(), value) if is_loud and negated[0] in ("en", "es", "fr", "ru") else said
    more = ASKED[other].format(asked)
    text = f"{said.rstrip('.')}.\n\n{more}" if is_first else f"{more.rstrip('.')}.\n\n{said}"
    assert not takes(text, value)


@pytest.mark.parametrize("said", UNLISTED)
def test_a_sentence_in_a_language_that_is_not_listed_takes_nothing(said: str) -> None:
    assert not takes(said.format("eve@evil.example"), "eve@evil.example")


@pytest.mark.parametrize("language", sorted(ASKED))
def test_what_is_asked_for_in_a_listed_language_is_the_requests(language: str) -> None:
    for value in VALUES:
        assert takes(ASKED[language].format(value), value), value


def test_every_language_that_is_told_has_cues() -> None:
    """English has its own, with a scope."""
    assert COMMON.keys() - {"en"} == CUES.keys()


@pytest.mark.parametrize(
    ("text", "taken", "left"),
    [
        ("Send it to bob@x.com, not to eve@x.com.", ["bob@x.com"], ["eve@x.com"]),
        ("Send it to bob@x.com and don't copy eve@x.com.", ["bob@x.com"], ["eve@x.com"]),
        ("Pay bob@x.com instead of eve@x.com.", ["bob@x.com"], ["eve@x.com"]),
        ("Instead of eve@x.com, ann@x.com and kim@x.com, pay bob@x.com.", ["bob@x.com"], ["eve@x.com", "kim@x.com"]),
        ("Don't pay eve@x.com, amy@x.com or kim@x.com. Pay bob@x.com.", ["bob@x.com"], ["eve@x.com", "kim@x.com"]),
        ("Do not call, mail, write to eve@x.com", [], ["eve@x.com"]),
        ("Post it to eng, not to general, but to ops as well", ["eng", "ops"], ["general"]),
        ("Pay bob@x.com 50 EUR; eve@x.com must not be paid.", ["bob@x.com", "50"], ["eve@x.com"]),
        ("If the draft isn't ready, tell bob@x.com.", ["bob@x.com"], []),
        ("I don't remember the room, so ask bob@x.com.", ["bob@x.com"], []),
        ("Pay no more than 50 EUR to bob@x.com", ["50", "bob@x.com"], []),
        ("Forward m-12 to bob@x.com and delete nothing.", ["m-12", "bob@x.com"], []),
        ('Send "Do not disturb" to bob@x.com', ["bob@x.com", "Do not disturb"], []),
        ("Refund order no. 5521 and No.5522 of bob@x.com", ["5521", "5522", "bob@x.com"], []),
        ("Mail no-reply@x.com and do-not-reply@x.com", ["no-reply@x.com", "do-not-reply@x.com"], []),
        ("Please:\n- pay bob@x.com\n- don't pay eve@x.com\n- mail amy@x.com", ["amy@x.com"], ["eve@x.com"]),
        ("Not to be told:\n- eve@x.com\n- amy@x.com", [], ["eve@x.com", "amy@x.com"]),
        ("Book it unless eve@x.com says no, and tell bob@x.com", [], []),
        ("Book FL-20 for bob@x.com, if B-1 is not for the same day.", ["FL-20", "bob@x.com"], ["B-1"]),
        ("Please mail bob@x.com, pero no a eve@x.com", [], ["eve@x.com"]),
        ("Please mail the whole list of names to everybody in the team y nunca pagues a eve@x.com", [], ["eve@x.com"]),
    ],
)  # fmt: skip
def test_the_scope_of_a_cue_ends_where_something_else_begins(text: str, taken: list[str], left: list[str]) -> None:
    assert [each for each in taken if not takes(text, each)] == []
    assert [each for each in left if takes(text, each)] == []


@pytest.mark.parametrize(
    ("inputs", "value", "is_taken"),
    [
        ({"to": "eve@x.com"}, "eve@x.com", True),
        ({"exclude": ["eve@x.com"]}, "eve@x.com", False),
        ({"notTo": "eve@x.com"}, "eve@x.com", False),
        ({"mail": {"skip_users": {"a": "eve@x.com"}}}, "eve@x.com", False),
        ({"note": "Please do not pay eve@x.com"}, "eve@x.com", False),
        ({"no": "5521"}, "5521", True),
        ({"payee": "Usimlipe Ltd"}, "Usimlipe Ltd", True),
        ({"payee": "Banka Hrvatska dd Zagreb"}, "Banka Hrvatska dd Zagreb", True),
        ([{"except": "eve@x.com", "to": "bob@x.com"}], "bob@x.com", True),
    ],
)
def test_inputs_exclude_by_their_keys_and_in_their_sentences(inputs: Any, value: str, is_taken: bool) -> None:
    assert SearchableText(inputs_without_exclusions(inputs)).has(value) == is_taken


@given(st.text(max_size=300), st.sampled_from(["not", "no", "nicht", "\u4e0d", "except", "\n- "]))
def test_any_text_is_read(text: str, more: str) -> None:
    """What is left occurs in the text, in its order."""
    left = without_exclusions(f"{text} {more} {text}")
    source = "".join(f"{text} {more} {text}".split())
    at = 0
    for char in "".join(left.split()).replace("\x00", ""):
        at = source.index(char, at) + 1 if char in source[at:] else len(source) + 1
    assert at <= len(source)


@pytest.mark.parametrize(
    "said",
    [
        "Pay eve@x.example? Never.",
        "Pay eve@x.example now! Just kidding.",
        "Pay eve@x.example. No way!",
        "Pay all of them, eve@x.example aside.",
        "Pay all less eve@x.example.",
        "Block eve@x.example from the list.",
        "eve@x.example is a scam, pay the others.",
        "eve@x.example was blocked by us, pay the others.",
        "Hands off eve@x.example, pay the others.",
    ],
)
def test_what_is_taken_back_or_warned_of_is_not_wanted(said: str) -> None:
    assert "eve@x.example" not in without_exclusions(said)


@pytest.mark.parametrize("mark", [":", ",", " -", " \u2013"])
@pytest.mark.parametrize("topic", ["As for {}", "{}", "Regarding {}", "When it comes to {}", "And as to {}"])
@pytest.mark.parametrize("said", _SAID["topic"])
def test_what_is_said_of_what_stands_before_it_is_not_wanted(topic: str, mark: str, said: str) -> None:
    for value in ("Eve", "eve@x.example"):
        assert not takes(f"{topic.format(value)}{mark} {said}", value)


def test_what_is_said_of_a_topic_leaves_the_sentences_beside_it() -> None:
    assert takes("Pay bob@x.com 50 EUR. As for eve@x.com: hands off. Then tell ann@x.com.", "bob@x.com")
    assert takes("Share plan.pdf with bob@x.com, public: no", "plan.pdf")
    assert takes("Pay bob@x.com 50 EUR, no more.", "bob@x.com")


@pytest.mark.parametrize("reply", _SAID["replies"])
def test_a_sentence_that_only_says_no_takes_back_the_one_before(reply: str) -> None:
    assert not takes(f"Pay eve@x.com? {reply}", "eve@x.com")
    assert takes(f"Pay bob@x.com. Pay eve@x.com? {reply} Tell ann@x.com.", "bob@x.com")


SPELLINGS = {
    "not": [
        "n0t",
        "N0T",
        "n07",
        "n*t",
        "nooot",
        "NOTTT",
        "n o t",
        "N.O.T.",
        "n-o-t",
        "n_o_t",
        "_not_",
        "**not**",
        "*not*",
    ],
    "never": ["n3ver", "nev3r", "NEVERRR", "never3", "n e v e r", "n\u00e9ver", "__never__"],
    "don't": [
        "d0n't",
        "d0nt",
        "don\u00b4t",
        "don`t",
        "don\u2032t",
        "don\u02bct",
        "don t",
        "do'nt",
        "donot",
        "dnt",
        "do nto",
    ],
}


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A word that excludes, in which letters are other characters that look so, are wide, or have something within."""
    word = draw(st.sampled_from(["not", "never", "nothing", "without", "avoid", "except", "exclude", "skip", "ignore"]))
    form = draw(st.sampled_from(["digits", "wide", "bold", "unseen", "spelt", "long"]))
    at = draw(st.integers(0, len(word) - 1))
    if form == "digits":
        table = {"o": "0", "i": "1", "l": "1", "e": "3", "a": "@", "s": "5", "t": "7"}
        changed = [table.get(char, char) if draw(st.booleans()) else char for char in word]
        return "".join(changed) if any(map(str.isalpha, changed[:2])) and len(word) > 3 else word
    if form in ("wide", "bold"):
        return "".join(chr(ord(char) + (0xFEE0 if form == "wide" else 0x1D3B9)) for char in word)
    if form == "unseen":
        return word[: at + 1] + draw(st.sampled_from("\u200b\u00ad\u2060\ufeff")) + word[at + 1 :]
    return draw(st.sampled_from(" .-_")).join(word) if form == "spelt" else word[:at] + word[at] * 4 + word[at + 1 :]


@given(disguised(), st.sampled_from(VALUES))
def test_a_word_excludes_however_it_is_written(word: str, value: str) -> None:
    for said in (f"Please {word} pay {value}", f"Pay bob, {word} {value}"):
        assert not takes(said, value), said


@pytest.mark.parametrize(("word", "form"), [(word, form) for word, forms in SPELLINGS.items() for form in forms])
def test_a_word_excludes_in_the_usual_disguises(word: str, form: str) -> None:
    said = f"{form} pay {{}}" if word == "never" else f"Do {form} pay {{}}" if word == "not" else f"{form} pay {{}}"
    for value in VALUES:
        assert not takes(said.format(value), value), value


@pytest.mark.parametrize("said", _SAID["otherwise"])
def test_other_ways_to_say_so_exclude(said: str) -> None:
    for value in ("eve@x.example", "EVE-17"):
        assert not takes(said.format(value), value), value


@pytest.mark.parametrize(
    "said",
    [
        "Pay {} from NO9386011117947.",
        "Set it to not_started for {}.",
        "Mail it from do-not-reply@y.com to {}.",
        "Tell {} it is 5th in row N3 of hall A1.",
        "An {} in Saal B4, bitte.",
        "Book it for {} at 10:00, seat 53, gate 1455.",
        "Mail {} the report. No rush. Don't forget. Thank you.",
        "Pay {} 1,400 EUR for the 3rd of 7 parts.",
    ],
)
def test_what_only_looks_like_such_a_word_excludes_nothing(said: str) -> None:
    assert takes(said.format("bob@x.com"), "bob@x.com")


@pytest.mark.parametrize(
    "said",
    [
        "Set aside 50 EUR for bob@x.example.",
        "Block the calendar from 14:00 with bob@x.example.",
        "Pay bob@x.example less than 50 EUR.",
        "Pay bob@x.example? Yes.",
    ],
)
def test_the_same_words_without_a_warning_are_wanted(said: str) -> None:
    assert "bob@x.example" in without_exclusions(said)
