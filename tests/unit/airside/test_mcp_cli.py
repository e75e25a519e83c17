"""`airside mcp`: what people see of tool servers, and what approving one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import airside
from airside.actors.app import App
from airside.cli import main
from airside.stack.errors import InvalidConfig
from airside.tools.mcp.session import McpSession
from airside.tools.tool import Toolset
from tests.apps.mcp_server import Served
from tests.tool_servers import declared, in_process

Command = Callable[..., tuple[object, str]]
DIRECTORY = "tenants: {acme: {principals: {ann: {}}}}"


def app_of(folder: Path) -> App:
    """Return an app whose only tools are the server's."""
    return App(
        agents={"a": airside.FunctionAgent(lambda view: airside.Finish(answer=1))},
        tools=[declared(folder)],
        policy=airside.DEFAULT_POLICY,
        directory=DIRECTORY,
    )


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs `airside mcp` on that app, with a server that is in this process; gives exit code and output."""
    monkeypatch.setattr(McpSession, "_streams", lambda self: in_process(Served(tmp_path, 1)))
    monkeypatch.setattr("airside.mcp_cli._SETTLE_S", 0)
    monkeypatch.setattr("airside.cli.load_app", lambda name, arguments: app_of(tmp_path))

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main(["mcp", *arguments, "--app", "x"])
        return ended.value.code, "".join(capsys.readouterr())

    return run


def test_an_app_is_refused_until_a_person_approved_its_server(command: Command, tmp_path: Path) -> None:
    """What is approved is shown first: every tool, and what policy is told of it."""
    with pytest.raises(InvalidConfig, match="nobody has approved its tools"):
        app_of(tmp_path).checked()
    assert "PROBLEM: server tests: nobody has approved" in command("list")[1]
    code, output = command("diff", "tests")
    assert code == 1 and "tool add: is new" in output and "Add up numbers." in output
    code, output = command("approve", "tests", "--yes", "--as", "ann")
    assert code == 0 and "tests.add            write         medium" in output and "approved tests (" in output
    checked = app_of(tmp_path).checked()
    assert {spec.name: spec.effect for spec in checked.specs}["tests.add"] == "write"
    assert all(isinstance(item, Toolset) for item in checked.app.tools), "what is sent to executors has its pin in it"
    assert command("diff", "tests") == (0, "tests is what was approved\n")
    (listed,) = json.loads(command("list", "--json")[1])
    assert listed["approved_by"] == "ann" and len(listed["tools"]) == len(Served(tmp_path, 1).tools)


def test_what_changed_is_shown_and_approved_only_when_asked_for(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("approve", "tests", "--yes")[0] == 0
    (tmp_path / "version").write_text("2")
    code, output = command("diff", "tests")
    assert code == 1 and '-   "version": "1"' in output and '+   "version": "2"' in output
    monkeypatch.setattr("typer.confirm", lambda text: False)
    assert command("approve", "tests")[0] == 1
    assert command("diff", "tests")[0] == 1, "nothing was written"
    monkeypatch.setattr("typer.confirm", lambda text: True)
    assert command("approve", "tests")[0] == 0 and command("diff", "tests")[0] == 0


def test_what_is_approved_is_shown_whole(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `diff` shows the beginning, and says that there is more."""
    monkeypatch.setattr("airside.mcp_cli._SHOWN", 5)
    name = list(Served(tmp_path, 1).tools)[-1]
    shown = command("diff", "tests")[1]
    assert f"tool {name}: is new" not in shown and "more lines, which `airside mcp approve` shows" in shown
    shown = command("approve", "tests", "--yes")[1]
    assert all(f"tool {each}: is new" in shown for each in Served(tmp_path, 1).tools)


def test_a_server_that_is_not_there_is_said(command: Command) -> None:
    assert command("diff", "other")[1] == "airside: there is no server 'other'; the app has ['tests']\n"
