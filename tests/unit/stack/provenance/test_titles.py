"""What a request calls a record: what it quotes as a title, not what it quotes to be sent, nor all its inputs."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airside.stack.provenance.matching import fold
from airside.stack.provenance.request_text import RequestText


def is_title(text: str, title: str, kind: str, inputs: Any = None) -> bool:
    return RequestText(text, inputs or {}, date(2026, 11, 29)).is_title(fold(title), frozenset({kind}))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("file", 'Share "Lunch" with ana.'),
        ("file", 'Send the file "Lunch" to ana.'),
        ("file", 'Teile die Datei "Lunch" mit ana.'),
        ("event", 'Move the event "Lunch" to 9:00.'),
        ("event", 'Move "Lunch" to 9:00 and tell ana "we moved".'),
        ("rehearsal", 'Add tomas to the "Lunch" rehearsal.'),
        ("case", "Note \"called back\" in the case 'Lunch' of ward west."),
        ("note", 'Forward the note "Lunch" to ana.'),
    ],
)
def test_what_is_quoted_as_the_name_of_a_record_is_a_title(kind: str, text: str) -> None:
    assert is_title(text, "Lunch", kind)


@pytest.mark.parametrize(
    "text",
    [
        'Tell everybody in box team "Lunch" and reply to what Ana wrote.',
        'Send ana@x.example a mail with the subject "Lunch".',
        'Send the message "Lunch" to ana, then delete it.',
        'Send "Lunch" to ana.',
        'Answer ticket 9 saying "Lunch".',
        'Write a mail saying: "Lunch"',
        'Post "Lunch" to the channel status.',
        'Reply "Lunch" to ana.',
        'Move it to 9:00 and tell ana "Lunch".',
        'Let everybody know "Lunch".',
        'Subject: "Lunch".',
        'The body is "Lunch". Then archive the mails.',
        'Use "Lunch" as the subject.',
        'Wish ana "Lunch".',
        'Sag allen "Lunch".',
        'Note "Lunch" in it.',
    ],
)
def test_what_is_quoted_to_be_sent_or_written_is_no_title(text: str) -> None:
    assert not any(is_title(text, "Lunch", kind) for kind in ("mail", "ticket", "note", "file"))


@pytest.mark.parametrize(
    ("inputs", "is_called"),
    [
        ({"title": "urgent"}, True),
        ({"ticket": "urgent"}, True),
        ({"ticketTitle": "urgent"}, True),
        ({"tickets": ["urgent"]}, True),
        ({"document": "urgent"}, True),
        ({"event_name": "urgent"}, False),
        ({"name": "urgent"}, False),
        ({"subject": "urgent"}, False),
        ({"priority": "urgent"}, False),
        ({"to": "urgent"}, False),
        ({"status": ["urgent"]}, False),
        ({"ticket": {"state": "urgent"}}, False),
        ({"ticket_id": "urgent"}, False),
        ({"user_name": "urgent"}, False),
        (["urgent"], False),
    ],
)
def test_inputs_call_a_record_so_only_under_a_key_that_names_it(inputs: Any, is_called: bool) -> None:
    assert is_title("Work through the box.", "urgent", "ticket", inputs) == is_called


def test_a_mail_address_is_no_name_of_a_file() -> None:
    assert is_title("Share plan.pdf with nadia@stage.example.", "plan.pdf", "file")
    assert not is_title("Share plan.pdf with nadia@stage.example.", "nadia@stage.example", "file")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('Create a document called "Lunch" and share it.', "Lunch"),
        ("Write the minutes to minutes.docx.", "minutes.docx"),
        ('Rename the file "Old" to "Lunch".', "Lunch"),
        ('Set up an event titled "Lunch" with bob.', "Lunch"),
    ],
)
def test_what_is_to_be_made_names_nothing_that_there_is(text: str, title: str) -> None:
    """A record of that title is somebody else's."""
    assert not is_title(text, title, "file") and not is_title(text, title, "event")


@pytest.mark.parametrize("text", ["Come at 6 p.m.", "Ask e.g. Bob.", "See www.news.example.", "Go to corp.io."])
def test_what_only_looks_like_a_file_is_none(text: str) -> None:
    assert not any(is_title(text, each, "file") for each in ("p.m", "e.g", "www.news.example", "corp.io"))
