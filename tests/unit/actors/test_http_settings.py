"""`App(http=...)`: where a stack serves HTTP is checked before anything starts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from airside.actors.app import App
from airside.http import HttpServer
from airside.stack.errors import InvalidConfig, WrongCall
from tests.apps.notes import create_app


def checked(http: Any, folder: Path) -> HttpServer | None:
    """Return what an app with this says of HTTP."""
    app = create_app(folder)
    fields = {name: getattr(app, name) for name in App.__dataclass_fields__}
    return App(**fields | {"http": http}).checked().http


def certificate(folder: Path) -> dict[str, Path]:
    """Make a certificate with its key."""
    files = {"tls_cert": folder / "c.pem", "tls_key": folder / "k.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api.example.com"]
    out = ["-out", str(files["tls_cert"]), "-keyout", str(files["tls_key"])]
    subprocess.run([*command, *out], check=True, capture_output=True, timeout=60)
    return files


def test_it_serves_this_machine_alone_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    server = checked(True, tmp_path)
    assert server is not None and (server.address, server.scheme) == ("127.0.0.1:8080", "http")
    assert checked(False, tmp_path) is None
    server = checked(HttpServer(host="::1", port=0), tmp_path)
    assert server is not None and server.address == "[::1]:0"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host": "0.0.0.0", "allowed_hosts": ["a"]}, "in clear"),
        ({"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]}, "allowed_hosts"),
        ({"host": ""}, "host"),
        ({"host": "127.0.0.1:80"}, "host"),
        ({"host": 1}, "host"),
        ({"port": 70_000}, "port"),
        ({"port": True}, "port"),
        ({"port": "8080"}, "port"),
        ({"per_node": 0}, "per_node"),
        ({"per_node": 2}, "console=False"),
        ({"console": 1}, "console"),
        ({"allowed_hosts": "api.example.com"}, "list"),
        ({"allowed_hosts": ["a b"]}, "allowed_hosts"),
        ({"trusted_proxies": ["*"]}, "trusted_proxies"),
        ({"trusted_proxies": [1]}, "trusted_proxies"),
        ({"tls_cert": "c.pem"}, "both or neither"),
        ({"tls_cert": "/nowhere/c.pem", "tls_key": "/nowhere/k.pem"}, "no certificate with its key"),
    ],
)
def test_what_cannot_be_served_is_said_by_its_name(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=f"http: .*{said}"):
        checked(HttpServer(**fields), tmp_path)


@pytest.mark.parametrize("http", [None, "127.0.0.1:80", 8080, {"port": 1}])
def test_what_is_no_server_is_refused(tmp_path: Path, http: Any) -> None:
    with pytest.raises(InvalidConfig, match="http"):
        checked(http, tmp_path)
    with pytest.raises(WrongCall, match="prot"):
        HttpServer(prot=80)  # type: ignore[call-arg]


def test_others_reach_it_by_a_certificate(tmp_path: Path) -> None:
    """A key that is another's is seen before anything starts."""
    mine = certificate(tmp_path)
    server = checked(HttpServer(host="0.0.0.0", allowed_hosts=["api.example.com"], **mine), tmp_path)
    assert server is not None and server.scheme == "https" and server.tls == (mine["tls_cert"], mine["tls_key"])
    (other := tmp_path / "other").mkdir()
    with pytest.raises(InvalidConfig, match="no certificate with its key"):
        checked(HttpServer(tls_cert=mine["tls_cert"], tls_key=certificate(other)["tls_key"]), tmp_path)
