"""Small files of a state directory: on a full disk it is said which, and what was there stays."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from airside.actors.client.known_principals import read_people, write_people
from airside.actors.client.stack_record import read_record, write_record
from airside.stack.directory import load_directory
from airside.stack.errors import Failed


@pytest.mark.parametrize("name", ["people.json", "stack.json"])
def test_of_a_full_disk_it_says_which_file_and_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = load_directory("tenants: {acme: {principals: {ana: {}}}}")

    def write() -> None:
        write_people(tmp_path, directory) if name == "people.json" else write_record(tmp_path, {"id": "one"})

    def full(path: Path, text: str, **_: Any) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    write()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(Failed, match=rf"^the disk of .* is full: make room, and start again\. .*{name}: it cannot"):
            write()
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert "acme" in (read_people(tmp_path) or {}) or read_record(tmp_path)["id"] == "one"
