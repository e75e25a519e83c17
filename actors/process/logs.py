"""Where the layers' logs lie: each process writes two files of its own in the log folder of its node's Ray session."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ray

LINK = "logs"
"""The link in a state directory to the folder of the logs of the stack that was last started there."""

_FILE = re.compile(r"worker-[0-9a-f]+-[0-9a-f]+-(?P<pid>[0-9]+)\.(?P<kind>out|err)")
_ACTOR = re.compile(rb"^:actor_name:(?P<name>\w+)", re.MULTILINE)
_HEAD_BYTES = 4096


class LogFile(NamedTuple):
    """One file: which layer's, of which process, whether that is the layer's present one, and how long it is."""

    layer: str
    pid: int
    is_live: bool
    path: Path
    size: int


def log_to_stderr(logger: logging.Logger) -> None:
    """Write what a layer logs to its process's own file, with when, how bad, and the action."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        form = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s action=%(action)s"
        handler.setFormatter(logging.Formatter(form, "%Y-%m-%dT%H:%M:%S", defaults={"action": "-"}))
        handler.formatter.converter = time.gmtime  # type: ignore[union-attr]
        logger.addHandler(handler)


def log_folder() -> str:
    """Return where this process's node has its logs; "" where Ray does not say."""
    node = getattr(ray._private.worker, "_global_node", None)
    return str(node.get_logs_dir_path()) if node is not None else ""


def link_logs(state_dir: Path) -> None:
    """Leave a link to the logs in the state directory, so that they are found when the stack is gone."""
    folder = log_folder()
    link, fresh = state_dir / LINK, state_dir / f"{LINK}.new"
    if not folder or (link.exists() and not link.is_symlink()):
        return
    with contextlib.suppress(OSError):  # a file system without links: `airside logs` says where they are while it runs
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder)
        fresh.replace(link)


def log_files(folder: Path, live: Mapping[int, str]) -> list[LogFile]:
    """Return the files of a folder that layers wrote, by layer; `live` = the pids of those that run, and their names.

    A process that is no more is listed by what kind of layer it was.
    """
    found = []
    for path in folder.glob("worker-*"):
        parsed = _FILE.fullmatch(path.name)
        if parsed is None:
            continue
        pid = int(parsed["pid"])
        with contextlib.suppress(OSError):
            layer = live.get(pid) or _kind_of(path)
            if layer:
                found.append(LogFile(layer, pid, pid in live, path, path.stat().st_size))
    return sorted(found, key=lambda file: (file.layer, not file.is_live, file.pid, file.path.suffix))


def _kind_of(path: Path) -> str:
    """Return the layer that wrote a file, by what Ray notes at its beginning; "" if it was none of ours."""
    with path.open("rb") as file:
        named = _ACTOR.search(file.read(_HEAD_BYTES))
    return _KINDS.get(named["name"].decode(), "") if named else ""


_KINDS = {
    "Journal": "journal",
    "Policy": "policy",
    "ToolExecutor": "executor",
    "Memory": "memory",
    "Approvals": "approvals",
    "Driver": "driver",
    "Ingress": "ingress",
    "Intake": "intake",
    "HttpLayer": "http",
    "TenantRuntime": "runtime",
    "Warden": "warden",
}
