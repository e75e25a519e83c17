"""Checkpoints: the heads of tenants' chains, sealed, in a file beside the log, so that a cut end shows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from airside.actors.journal.log import sync_folder
from airside.stack.security.seals import is_sealed, seal

CHECKPOINTS = "checkpoints.jsonl"


def write_checkpoint(folder: Path, key: bytes, at_us: int, heads: Mapping[str, tuple[int, bytes]]) -> None:
    """Append the heads to the file of checkpoints, durably."""
    body = json.dumps(
        {"at_us": at_us, "heads": {tenant: [number, mac.hex()] for tenant, (number, mac) in sorted(heads.items())}},
        sort_keys=True,
    )
    mark = seal(key, "checkpoint", body.encode()).hex()
    is_new = not (folder / CHECKPOINTS).exists()
    descriptor = os.open(folder / CHECKPOINTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        _cut_torn_end(file)
        file.write(json.dumps({"body": body, "seal": mark}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:  # else a power cut could take the file, and with it the sight of a cut end
        sync_folder(folder)


def _cut_torn_end(file: BinaryIO) -> None:
    """Go to the file's end, without what a crash or a full disk left there of a line."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def read_checkpoints(folder: Path, key: bytes, problems: list[str]) -> dict[str, dict[int, bytes]]:
    """Return which link each tenant's entries had when a checkpoint saw them; add what is wrong to `problems`."""
    wanted: dict[str, dict[int, bytes]] = {}
    path = folder / CHECKPOINTS
    if not path.exists():
        return wanted
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for i, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            body = record["body"]
            sealed = is_sealed(key, "checkpoint", body.encode(), bytes.fromhex(record["seal"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            # The last line may be cut by a crash in the middle of writing it.
            if i < len(lines):
                problems.append(f"{CHECKPOINTS}:{i}: not a checkpoint")
            continue
        if not sealed:
            problems.append(f"{CHECKPOINTS}:{i}: the seal does not hold")
            continue
        for tenant, (number, mac) in json.loads(body)["heads"].items():
            wanted.setdefault(tenant, {})[number] = bytes.fromhex(mac)
    return wanted
