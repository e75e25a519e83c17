"""An app whose tools put files on a shelf and take them back; a log counts what was done, doubles included.

What an undo is to do wrong is said by a file beside the shelf, so that a test can mend it: `fail-NAME`, `break-NAME`
(an exception nobody declared) or `hang-NAME` (it has its effect, and does not answer).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from airside import Action, App, FanOutFanIn, Finish, ReplayAgent, SingleAgent, ToolError, View
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools.tool import Tool, ToolContext, tool
from tests.apps.ledger import Ledger

LIMITS = {"doubt_wait_s": 0, "max_steps": 30}


def one(view: View) -> Action | Finish:
    """Put two files."""
    return _two(view, "one")


def two(view: View) -> Action | Finish:
    """Put two files."""
    return _two(view, "two")


def _two(view: View, name: str) -> Action | Finish:
    done = len(view.history)
    return Action(tool="put", arguments={"title": f"{name}-{done}"}) if done < 2 else Finish(answer=name)


def join(view: View) -> Action | Finish:
    """Put one more when the branches have ended."""
    done = view.own_history()
    return Finish(answer="joined") if done else Action(tool="put", arguments={"title": "last"})


class Shelf:
    """The shelf, its log, and what is to go wrong."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.files = work / "shelf"
        self.ledger = Ledger(work / "ledger.sqlite")

    def names(self) -> list[str]:
        """Return what is on the shelf."""
        return sorted(path.name for path in self.files.iterdir()) if self.files.is_dir() else []

    def log(self, tool: str) -> list[str]:
        """Return the texts of what a tool or an undo did, in order."""
        return [text for name, text, _ in self.ledger.rows() if name == tool]

    def clear(self) -> None:
        """Take everything away, and forget what was done."""
        for name in self.names():
            self.take(name)
        self.ledger.clear()

    def put(self, name: str) -> None:
        """Put a file on the shelf."""
        self.files.mkdir(parents=True, exist_ok=True)
        (self.files / name).write_text(name, encoding="utf-8")

    def take(self, name: str) -> None:
        """Take it away."""
        (self.files / name).unlink(missing_ok=True)

    def obstruct(self, how: str, name: str) -> Path:
        """Let the undo of a file go wrong until the returned path is removed."""
        path = self.work / f"{how}-{name}"
        path.touch()
        return path

    def heed(self, how: str, name: str) -> bool:
        """Whether an undo is to go wrong so."""
        return (self.work / f"{how}-{name}").exists()


def tools(shelf: Shelf) -> list[Tool]:
    """Return tools with an undo, idempotent and not, one without, and a read."""

    def unput(context: ToolContext, arguments: dict[str, Any], output: Any) -> dict[str, Any]:
        name = arguments["title"]
        if shelf.heed("fail", name):
            raise ToolError(f"{name} is held")
        if shelf.heed("break", name):
            raise OSError("the shelf fell")
        assert output == {"put": name, "under": context.original_key}
        shelf.take(name)
        shelf.ledger.append(context.idempotency_key, "unput", name, 0)
        if shelf.heed("hang", name):
            threading.Event().wait(60)
        return {"took": name}

    @tool(effect="write", undo=unput)
    def put(title: str, context: ToolContext, hang: bool = False) -> dict[str, Any]:
        """Put a file on the shelf; must not be called twice."""
        shelf.put(title)
        shelf.ledger.append(context.idempotency_key, "put", title, 0)
        if hang:
            threading.Event().wait(60)
        return {"put": title, "under": context.idempotency_key}

    def unnote(context: ToolContext, arguments: dict[str, Any], output: Any) -> None:
        shelf.ledger.once(context.idempotency_key, "unnote", arguments["text"])
        if shelf.heed("hang", arguments["text"]):
            threading.Event().wait(60)

    @tool(effect="write", idempotent=True, undo=unnote)
    def note(text: str, context: ToolContext) -> str:
        """Note a text, once a key."""
        shelf.ledger.once(context.idempotency_key, "note", text)
        return text

    @tool(effect="write", idempotent=True)
    def stamp(text: str, context: ToolContext) -> str:
        """Do what nobody can take back."""
        shelf.ledger.once(context.idempotency_key, "stamp", text)
        return text

    @tool(effect="read")
    def look(topic: str) -> str:
        """Change nothing."""
        return topic

    @tool(effect="write", undo=unput)
    def refuse(title: str) -> str:
        """Change nothing, and say so."""
        raise ToolError(title)

    return [put, note, stamp, look, refuse]


def create_app(work: str | Path) -> App:
    """Return the app; its shelf is in `work`."""
    return App(
        agents={"clerk": ReplayAgent(), "one": one, "two": two, "join": join},
        routes={
            "default": SingleAgent("clerk"),
            "fan": FanOutFanIn(("one", "two"), join="join"),
            "one": SingleAgent("one"),
            "two": SingleAgent("two"),
        },
        tools=tools(Shelf(Path(work))),
        policy="version: shelf-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(tenants={"acme": Tenant(principals={"ana": Principal()}, limits=LIMITS)}),
        version="shelf-1",
    )
