"""A stack that serves HTTP by itself: its servers begin with it, are restarted, and have no key of it."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import httpx2
import pytest

import airside
from airside.client import Client
from airside.http import HttpServer
from airside.stack.directory import Directory, Tenant
from airside.stack.errors import Failed
from tests.apps.notes import LIMITS, PEOPLE, create_app
from tests.on_ray import BOUND_S, sigkill, until

pytestmark = pytest.mark.ray


def is_ready(url: str) -> bool:
    """Whether a server answers that its stack does."""
    try:
        return httpx2.get(f"{url}/v1/health/ready", timeout=BOUND_S).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_stack_serves_http_and_goes_on_when_a_server_dies(local_ray: None, tmp_path: Path) -> None:
    """Two processes share a port; a port that is taken is said before anything starts, and reloading takes it over."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HttpServer(port=port, per_node=2, console=False)
        directory = Directory(tenants={"acme": Tenant(principals=PEOPLE, limits=LIMITS)})
        app = dataclasses.replace(create_app(tmp_path), directory=directory, http=server)
        with pytest.raises(Failed, match="in use"):
            airside.start(app, stack="http", state_dir=tmp_path, executors=1, mode="pooled")
    stack = airside.start(app, stack="http", state_dir=tmp_path, executors=1, mode="pooled")
    try:
        url = f"http://127.0.0.1:{port}"
        assert stack.http_urls == [url] * 2 and {each["url"] for each in servers(stack)} == {url}
        token = stack.token("acme", "ana")
        (tmp_path / "keys").rename(tmp_path / "hidden")  # the servers have to do without
        before = set(sigkill(stack, "http/"))
        until(lambda: not before & {each.get("pid") for each in servers(stack)} and len(stack.http_urls) == 2, "both")
        until(lambda: is_ready(url), "the servers to serve again")
        with Client(url, token) as client:
            run = client.submit("do it", inputs={"actions": []}, key="once").run_id
            assert client.result(run, timeout=BOUND_S).status == "completed"
        assert httpx2.get(f"{url}/console/login", timeout=BOUND_S).status_code == 404
        (tmp_path / "hidden").rename(tmp_path / "keys")
        stack.reload(dataclasses.replace(app, http=HttpServer(port=port)))
        assert stack.http_urls == [url] and until(lambda: is_ready(url), "the reloaded server")
        assert httpx2.get(f"{url}/console/login", timeout=BOUND_S).status_code == 200
    finally:
        stack.shutdown()
    assert not is_ready(url)


def servers(stack: airside.Stack) -> list[dict[str, object]]:
    """Return what the stack says of its servers."""
    return [each for name, each in stack.status().items() if name.startswith("http/")]
