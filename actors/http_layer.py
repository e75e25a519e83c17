"""HttpLayer: a server of the stack's HTTP API and console, as an actor of it, so that it begins and is mended with it.

It is `airside serve` in another process: it is given no key, decides nothing, and asks each question with the
credential that came with it.  It keeps nothing but who is logged in to its console: one that dies is restarted, and
loses the connections and the sessions that it had.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from airside.actors.api.server import http_api
from airside.actors.api.stack_port import StackConnection
from airside.actors.client.connection import Connection
from airside.actors.client.ray_membership import Membership
from airside.actors.console.server import Console, with_console
from airside.actors.http_settings import HttpServer
from airside.actors.rpc.layer import LayerConfig, control
from airside.actors.wardens.watched import WatchedLayer
from airside.actors.web.listening import Listener, Tls, listen, server_of
from airside.stack.errors import Failed

_BIND_S = 10.0
"""How long a port may be taken that was another process's of this stack, which is being ended."""

_AGAIN_S = 0.1


class HttpLayer(WatchedLayer):
    """One server of a node."""

    def __init__(self, config: LayerConfig, server: HttpServer) -> None:
        super().__init__(config)
        self._server = server
        self._url = ""

    async def start(self) -> None:
        """Listen, and serve from then on; a certificate that this node has not got is said at once."""
        stack = StackConnection(self._connection)
        app = http_api(stack, self._server.allowed_hosts)
        if self._server.console:
            app = with_console(app, Console(stack, tuple(self._server.allowed_hosts)))
        tls = None if self._server.tls is None else Tls(*self._server.tls)
        server = server_of(app, tls=tls, trusted_proxies=self._server.trusted_proxies)
        listener = await self._listening_soon()
        self._url = listener.url
        self._serving = asyncio.ensure_future(self.forever(self._serve(server, listener)))

    def _connection(self) -> Connection:
        """Return a connection to the stack that this is a layer of, in the Ray that this process is in."""
        member = Membership(str(ray.get_runtime_context().gcs_address), None)
        return Connection(self.config.cell, self.config.stack_id, member)

    async def _listening_soon(self) -> Listener:
        until = time.monotonic() + _BIND_S
        while True:
            try:
                return listening(self._server)
            except Failed:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def _serve(self, server: Any, listener: Listener) -> None:
        await server.serve(sockets=[listener.socket])
        raise Failed(f"{listener.url} is served no more")

    async def stats(self) -> dict[str, Any]:
        """Return where it serves; nothing until it does."""
        return {"url": self._url} if self._started else {}


def listening(server: HttpServer) -> Listener:
    """Return where a server listens; raise `Failed` for a port that is taken."""
    return listen(
        server.address,
        server.allowed_hosts,
        option="http: host",
        name_option="allowed_hosts",
        scheme=server.scheme,
        is_shared=server.per_node > 1,
    )


control(HttpLayer.stats)
