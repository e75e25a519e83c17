"""`airside serve`: where it listens, for whom, and that it looks at no key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airside.actors.client.connection import Connection
from airside.actors.launch import attach
from airside.actors.web.listening import Listener, Tls
from airside.cli import main
from airside.stack.security.keyring import KeyRing

Command = Callable[..., tuple[object, str]]


class Served:
    """What was served, instead of serving it."""

    listener: Listener | None = None
    tls: Tls | None = None
    proxies: tuple[str, ...] = ()


class Connected:
    """A connection to a stack that is not there."""

    def close(self) -> None:
        """Disconnect."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Note what is served; there is a stack, whose keys nobody may open."""
    made = Served()

    async def serve_http(_: Any, listener: Listener, *, tls: Tls | None, trusted_proxies: tuple[str, ...]) -> None:
        listener.socket.close()
        made.listener, made.tls, made.proxies = listener, tls, trusted_proxies

    monkeypatch.setattr("airside.actors.web.listening.serve_http", serve_http)
    monkeypatch.setattr("airside.actors.launch.attach", lambda _: Connected())
    return made


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs `airside serve`; gives exit code and output."""

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--port", "0", *arguments])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


def test_it_listens_on_this_machine_alone(served: Served, command: Command) -> None:
    code, said = command()
    assert code == 0 and served.listener is not None and served.tls is None and not served.proxies
    assert served.listener.url.startswith("http://127.0.0.1:") and f"serving on {served.listener.url}/v1" in said
    assert command("--host", "::1")[0] == 0 and served.listener.url.startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "in clear"),
        (("--host", "0.0.0.0", "--trusted-proxy", "10.0.0.1"), "--allowed-host"),
        (("--host", "0.0.0.0", "--tls-cert", "c.pem", "--tls-key", "k.pem"), "--allowed-host"),
        (("--tls-cert", "c.pem"), "both or neither"),
        (("--tls-key", "k.pem"), "both or neither"),
    ],
)
def test_others_reach_it_by_a_name_and_never_in_clear(
    served: Served, command: Command, arguments: tuple[str, ...], said: str
) -> None:
    code, output = command(*arguments)
    assert code == 2 and said in output and served.listener is None


def test_a_certificate_or_a_proxy_is_what_stands_before_others(served: Served, command: Command) -> None:
    others = ("--host", "0.0.0.0", "--allowed-host", "api.example.com")
    assert command(*others, "--tls-cert", "c.pem", "--tls-key", "k.pem")[0] == 0
    assert served.tls == Tls(certificate=Path("c.pem"), key=Path("k.pem"))
    assert served.listener is not None and served.listener.url.startswith("https://0.0.0.0:")
    assert command(*others, "--trusted-proxy", "10.0.0.1")[0] == 0
    assert served.tls is None and served.proxies == ("10.0.0.1",)


def test_what_it_needs_is_said(served: Served, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not everybody who runs jobs serves them."""
    monkeypatch.delitem(sys.modules, "airside.actors.api.server", raising=False)
    monkeypatch.setitem(sys.modules, "starlette.responses", None)
    code, said = command()
    assert code == 2 and "pip install 'airside[http]'" in said and served.listener is None


def test_attaching_looks_at_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that whoever serves need not be able to read them."""
    record = {"stack": "s", "address": "127.0.0.1:1", "id": "x"}
    monkeypatch.setattr("airside.actors.launch.read_record", lambda _: record)
    monkeypatch.setattr("airside.actors.launch.is_listening", lambda _: True)
    monkeypatch.setattr("airside.actors.launch.join_ray", lambda *_, **__: object())
    monkeypatch.setattr("airside.actors.launch.list_stacks", lambda: ["s"])
    monkeypatch.setattr(Connection, "identify", lambda _: None)

    def opened(_: Path) -> KeyRing:
        raise AssertionError("the keys were opened")

    monkeypatch.setattr(KeyRing, "open", opened)
    (tmp_path / "keys").mkdir()
    assert attach(tmp_path).stack_id == "x"
