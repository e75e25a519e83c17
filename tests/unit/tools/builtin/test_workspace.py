"""Files of a tenant's workspace: what is reached, what is refused, and what a write leaves when it dies anywhere."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airside.tools.builtin.workspace as module
from airside.stack.errors import InvalidConfig
from airside.tools import workspace_tools
from airside.tools.builtin.workspace import parse_path
from airside.tools.tool import Tool, ToolError
from tests.unit.tools.builtin.contexts import context


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of workspaces, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root" / "acme").mkdir(parents=True)
    (tmp_path / "root" / "other").mkdir()
    (tmp_path / "root" / "other" / "theirs").write_text("theirs")
    return tmp_path / "root"


def tools(root: Path, **options: Any) -> dict[str, Tool]:
    """Return the tools by name."""
    return {each.name: each for each in workspace_tools(root, **options)}


def undo(made: dict[str, Tool], key: str, *, attempt: int = 1) -> None:
    """Take a write back."""
    assert made["write_file"].undo is not None
    made["write_file"].undo(context(f"{key}/undo", attempt=attempt), {}, None)


def test_what_is_written_is_read_and_listed_by_its_tenant_alone(root: Path) -> None:
    """In folders that are made on the way; each tenant has a folder of its own."""
    made = tools(root)
    assert made["write_file"](context(), "reports/july.md", "grüße") == {
        "path": "reports/july.md",
        "bytes": 7,
        "replaced": False,
    }
    assert made["read_file"](context(), "reports/july.md")["text"] == "grüße"
    assert made["list_files"](context())["entries"] == [{"name": "reports/"}]
    assert made["list_files"](context(), "reports")["entries"] == [{"name": "july.md", "bytes": 7}]
    assert made["list_files"](context(tenant="globex"))["entries"] == []
    with pytest.raises(ToolError, match="No such file"):
        made["read_file"](context(tenant="globex"), "reports/july.md")


def test_what_another_wrote_since_is_not_taken_back_though_it_says_the_same(root: Path) -> None:
    """Two writes may put down the same text: the later one's is its own."""
    made = tools(root)
    write = made["write_file"]
    write(context("a"), "done.txt", "ok")
    write(context("b"), "done.txt", "ok", overwrite=True)
    with pytest.raises(ToolError, match="was changed since"):
        undo(made, "a")
    assert made["read_file"](context(), "done.txt")["text"] == "ok"
    undo(made, "b")
    write(context("c"), "done.txt", "1", overwrite=True)
    write(context("d"), "done.txt", "2", overwrite=True)
    write(context("e"), "done.txt", "1", overwrite=True)
    with pytest.raises(ToolError, match="was changed since"):
        undo(made, "c")
    assert made["read_file"](context(), "done.txt")["text"] == "1"


BAD_PATHS = [
    *(
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../other/theirs",
        "a/../../other/theirs",
        "a/./b",
        "a//b",
        "./a",
        "a/",
        "~/../x",
    ),
    *("a\\b", "..\\other", "a\0b", "a\nb", "a\u202eb", "a\u200bb", " a", "a ", " ..", ".. /other/theirs", "\ud800"),
    *("x" * 256, "/".join("a" * 17), "x/" * 600 + "x"),
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:40])
def test_a_path_that_is_not_plainly_within_is_refused(root: Path, path: str) -> None:
    """By every tool, and nothing is made of it."""
    made = tools(root)
    for name, more in (("read_file", ()), ("write_file", ("text",))):
        with pytest.raises(ToolError):
            made[name](context(), path, *more)
    if path not in ("", ".", "a/"):
        with pytest.raises(ToolError):
            made["list_files"](context(), path)
    assert list((root / "acme").iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "folder link", "absolute link", "hard link", "pipe", "folder", "own link"])
def test_what_is_no_plain_file_of_one_name_is_neither_read_nor_written(root: Path, kind: str) -> None:
    """Links of either kind, wherever they lead; a pipe does not block who reads it."""
    home = root / "acme"
    (home / "mine").write_text("mine")
    path = "trick/theirs" if kind == "folder link" else "trick"
    match kind:
        case "link":
            (home / "trick").symlink_to("../other/theirs")
        case "folder link":
            (home / "trick").symlink_to("../other", target_is_directory=True)
        case "absolute link":
            (home / "trick").symlink_to(root.parent / "secret")
        case "hard link":
            os.link(root.parent / "secret", home / "trick")
        case "pipe":
            os.mkfifo(home / "trick")
        case "folder":
            (home / "trick").mkdir()
        case "own link":
            (home / "trick").symlink_to("mine")
    made = tools(root)
    with pytest.raises(ToolError):
        made["read_file"](context(), path)
    with pytest.raises(ToolError):
        made["write_file"](context(), path, "overwritten", overwrite=True)
    if kind != "folder":
        with pytest.raises(ToolError):
            made["list_files"](context(), "trick")
    if "link" in kind and kind != "hard link":
        assert made["list_files"](context())["entries"] == [{"name": "mine", "bytes": 4}]
    assert (root.parent / "secret").read_text() == "secret" and (root / "other" / "theirs").read_text() == "theirs"
    assert (home / "mine").read_text() == "mine"


def test_a_tenants_folder_that_is_a_link_is_no_workspace(root: Path) -> None:
    """Nor is one of the records a link."""
    (root / "evil").symlink_to("other", target_is_directory=True)
    with pytest.raises(ToolError):
        tools(root)["read_file"](context(tenant="evil"), "theirs")
    (root / ".airside").symlink_to(root.parent, target_is_directory=True)
    with pytest.raises(ToolError):
        tools(root)["write_file"](context(), "a", "b")


def test_a_folder_that_becomes_a_link_while_a_path_is_opened_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is opened relative to the descriptor of the one before, never by name again."""
    (root / "acme" / "a").mkdir()
    (root / "acme" / "a" / "theirs").write_text("mine")
    opened = os.open

    def swapping(name: Any, flags: int, *rest: Any, **named: Any) -> int:
        if name == "theirs":
            (root / "acme" / "a").rename(root / "acme" / "b")
            (root / "acme" / "a").symlink_to("../other", target_is_directory=True)
        return opened(name, flags, *rest, **named)

    monkeypatch.setattr(module.os, "open", swapping)
    assert tools(root)["read_file"](context(), "a/theirs")["text"] == "mine"


def test_a_file_that_is_there_is_replaced_only_where_that_is_said(root: Path) -> None:
    """The error says how."""
    write = tools(root)["write_file"]
    write(context("k1"), "a", "one")
    with pytest.raises(ToolError, match="overwrite=true"):
        write(context("k2"), "a", "two")
    assert (root / "acme" / "a").read_text() == "one"
    assert write(context("k3"), "a", "three", overwrite=True)["replaced"]
    assert (root / "acme" / "a").read_text() == "three"


def test_one_key_writes_once(root: Path) -> None:
    """A later attempt is answered as the first was, and leaves what others wrote meanwhile."""
    write = tools(root)["write_file"]
    first = write(context("k1"), "a", "one")
    write(context("k2"), "a", "two", overwrite=True)
    assert write(context("k1", attempt=2), "a", "one") == first
    assert (root / "acme" / "a").read_text() == "two"


class Crash(BaseException):
    """The process dies."""


STEPS = ("open", "rename", "fsync", "unlink", "mkdir")


@pytest.mark.parametrize("before", [None, "before"])
@pytest.mark.parametrize("at", range(40))
def test_a_write_or_undo_that_dies_anywhere_is_done_once_when_it_is_sent_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: int, before: str | None
) -> None:
    """Whole or not at all, at every step that changes something; and it can be taken back after that."""
    file = root / "acme" / "folder" / "a"
    file.parent.mkdir()
    if before is not None:
        file.write_text(before)
    count = 0

    def dying(real: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at + 1:
                raise Crash
            return real(*arguments, **named)

        return step

    made = tools(root)

    def attempts(what: Any) -> None:
        for attempt in (1, 2):
            try:
                what(attempt)
                return
            except Crash:
                assert file.exists() == (before is not None) or file.read_text() in ("after", before)

    for name in STEPS:
        monkeypatch.setattr(module.os, name, dying(getattr(os, name)))
    attempts(lambda attempt: made["write_file"](context("k", attempt=attempt), "folder/a", "after", overwrite=True))
    assert file.read_text() == "after"
    attempts(lambda attempt: undo(made, "k", attempt=attempt))
    assert (file.read_text() if file.exists() else None) == before
    undo(made, "k", attempt=3)
    assert (file.read_text() if file.exists() else None) == before


def test_a_file_that_was_changed_since_is_not_taken_back(root: Path) -> None:
    """Nor one that was never written."""
    made = tools(root)
    made["write_file"](context("k1"), "a", "one")
    (root / "acme" / "a").write_text("somebody else's")
    with pytest.raises(ToolError, match="changed since"):
        undo(made, "k1")
    with pytest.raises(ToolError, match="not written"):
        undo(made, "k2")
    assert (root / "acme" / "a").read_text() == "somebody else's"


def test_a_workspace_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the size of a file, in files, and in all together; of old writes, too, not all is kept."""
    write = tools(root, max_file_bytes=10, max_files=3, max_total_bytes=25)["write_file"]
    with pytest.raises(ToolError, match="more than a file may have"):
        write(context("k0"), "a", "x" * 11)
    for number in range(2):
        write(context(f"k{number}"), str(number), "x" * 10)
    with pytest.raises(ToolError, match="25 bytes"):
        write(context("k2"), "2", "x" * 10)
    write(context("k2"), "2", "x")
    with pytest.raises(ToolError, match="3 files"):
        write(context("k3"), "3", "x")
    monkeypatch.setattr(module, "_KEPT_WRITES", 2)
    made = tools(root)
    for number in range(5):
        made["write_file"](context(f"n{number}"), "n", str(number), overwrite=True)
    assert len(list((root / ".airside" / "acme").glob("*.json"))) == 2
    undo(made, "n4")
    assert (root / "acme" / "n").read_text() == "3"
    with pytest.raises(ToolError, match="too long ago"):
        undo(made, "n0")


def test_a_large_file_is_read_in_parts_and_none_cuts_a_character(root: Path) -> None:
    """Each part says where the next begins; what is no text is base64."""
    made = tools(root, max_file_bytes=10)
    text = "grüße an alle, überall"
    (root / "acme" / "a").write_text(text)
    (root / "acme" / "b").write_bytes(b"\0\xff")
    parts, offset = [], 0
    while True:
        part = made["read_file"](context(), "a", offset)
        parts.append(part["text"])
        if "next_offset" not in part:
            break
        offset = part["next_offset"]
    assert "".join(parts) == text and len(parts) == 3
    assert base64.b64decode(made["read_file"](context(), "b")["base64"]) == b"\0\xff"


def test_a_long_folder_is_listed_in_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that it is."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    for name in "abc":
        (root / "acme" / name).touch()
    listed = tools(root)["list_files"](context())
    assert [each["name"] for each in listed["entries"]] == ["a", "b"] and listed["truncated"]


def test_what_the_tools_declare(root: Path) -> None:
    """A write says where by authority, and what by content; it is repeatable and can be undone."""
    made = tools(root)
    write = made["write_file"].spec
    assert (write.effect, write.repeatable, write.undoable, write.content) == ("write", True, True, ("text",))
    assert {made[name].spec.effect for name in ("read_file", "list_files")} == {"read"}
    for options in ({"root": "relative"}, {"max_file_bytes": 0}, {"max_files": 0}, {"max_total_bytes": 5}):
        with pytest.raises(InvalidConfig):
            workspace_tools(**({"root": root} | options))  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "\0", " ", "other", "é", "e\u0301", "~"]), max_size=6))
def test_the_parts_of_a_path_are_names(pieces: list[str]) -> None:
    """Whatever the text is: none leads up, none is empty, and reading them again gives the same."""
    try:
        parts = parse_path("".join(pieces))
    except ToolError:
        return
    assert parts and all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)
    assert parse_path("/".join(parts)) == parts
