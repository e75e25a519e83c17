"""Where a sentence ends that has no blank after it: a host or a file's name is then one, and its part is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.exclusions import without_exclusions
from airside.stack.provenance.matching import SearchableText
from airside.stack.text.tokens import parted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Read www.corp.example.Then tell Ann.", "www.corp.example"),
        ("Read www.corp.com.After that, stop.", "www.corp.com"),
        ("Ask bob@corp.co.uk.Don't ask Ann.", "bob@corp.co.uk"),
        ("Open notes.txt.Then close it.", "notes.txt"),
        ("Open https://corp.com.I need it.", "corp.com"),
        ("Open https://corp.example/a/notes.html.Then close it.", "corp.example/a/notes.html"),
    ],
)
def test_a_name_that_ends_a_sentence_is_whole(text: str, value: str) -> None:
    assert SearchableText(text).has(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Read www.corp.com.Shop now.", "www.corp.com"),
        ("Read www.corp.com.Au now.", "www.corp.com"),
        ("Read www.corp.com.then now.", "www.corp.com"),
        ("Read www.corp.com.THEN now.", "www.corp.com"),
        ("Read www.corp.com.Then.example now.", "www.corp.com"),
        ("Read www.corp.com.Then/x now.", "www.corp.com"),
        ("Read www.corp.com.Then@x now.", "www.corp.com"),
        ("Read www.corp.com.Then", "www.corp.com"),
        ("Ask bob@corp.com.Then ask.", "corp.com"),
        ("Ask bob@corp.com.Then ask.", "bob@corp"),
        ("Read office.Then go.", "office"),
        ("Read www.corp.example.Then tell.", "corp.example"),
        ("Read “x www.corp.com.Then y”.", "www.corp.com"),
    ],
)
def test_a_part_of_a_longer_name_is_not(text: str, value: str) -> None:
    assert not SearchableText(text, quotes=True).has(value)


def test_what_the_next_sentence_says_not_to_take_is_not_wanted() -> None:
    text = "Write to bob@corp.com.Never write to eve@corp.com."
    assert SearchableText(without_exclusions(text)).has("bob@corp.com") and not SearchableText(
        without_exclusions(text)
    ).has("eve@corp.com")


LABEL = st.from_regex(r"[a-z]{3,8}", fullmatch=True)


@given(LABEL, st.sampled_from(["com", "org", "io", "example"]), LABEL, st.sampled_from(["com", "net", "co.uk"]))
def test_a_host_that_goes_on_is_never_cut(one: str, ending: str, more: str, last: str) -> None:
    """Whatever the case of what follows: a longer host does not hold its beginning."""
    for further in (more, more.capitalize(), more.upper()):
        assert not SearchableText(f"go to {one}.{ending}.{further}.{last} now").has(f"{one}.{ending}")


@given(st.text(alphabet="ab.TI @c'om \"", max_size=40))
def test_only_a_blank_is_added(text: str) -> None:
    assert parted(text).replace(" ", "") == text.replace(" ", "")
    assert parted(parted(text)) == parted(text)
