"""Where the journal of a state directory is: in a file of that directory, or in the database that it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airside.actors.journal.log import JOURNAL, sync_folder
from airside.actors.journal.postgres_session import where
from airside.stack.errors import Unreadable

BEFORE = "journal.duckdb"
"""What a journal was called when DuckDB was all of it."""

PLACE = "journal.json"
"""Names the database, and which log is there."""


def read_place(folder: Path) -> dict[str, str]:
    """Return what a folder says of where its journal is; nothing if that is a file in it."""
    path = folder / PLACE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"url": str(found["url"]), "log": str(found["log"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{path}: it does not say where the journal is: {error}") from None


def journal_place(folder: Path) -> str:
    """Return where the journal of a folder is, as people are told."""
    url = read_place(folder).get("url")
    return where(url) if url else str(folder / JOURNAL)


def has_journal(folder: Path) -> bool:
    """Whether a folder has a journal, or says where its is."""
    return has_file(folder) or (folder / PLACE).exists()


def has_file(folder: Path) -> bool:
    """Whether a folder has a journal that is a file."""
    return (folder / JOURNAL).exists() or (folder / BEFORE).exists()


def write_place(folder: Path, url: str, log: str) -> None:
    """Have a folder say, durably, where its journal is."""
    path = folder / PLACE
    part = path.with_name(f"{PLACE}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": url, "log": log}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(folder)
