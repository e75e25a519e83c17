"""`airside serve`: the HTTP API and the console of a running stack, by a process that has none of its keys."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from airside.options import HERE, StateDir, path_of
from airside.stack.errors import InvalidConfig, Misuse


def serve(
    host: Annotated[str, typer.Option(help="where to listen; 127.0.0.1 unless others are to reach it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any that is free", min=0, max=65_535)] = 8080,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", help="a name that it is reached by; repeatable")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(parser=path_of, help="a certificate as PEM, with those above it")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(parser=path_of, help="its key as PEM")] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option("--trusted-proxy", help="the address of a proxy with TLS that stands before it; repeatable"),
    ] = None,
    console: Annotated[bool, typer.Option(help="the pages for people too")] = True,
    state_dir: StateDir = HERE,
) -> None:
    """Serve the HTTP API of a running stack, `/v1`, and its console, `/console`, to whoever holds a credential."""
    try:
        from airside.actors.api.server import http_api
        from airside.actors.api.stack_port import StackConnection
        from airside.actors.console.render import PREFIX
        from airside.actors.console.server import Console, with_console
        from airside.actors.http_settings import is_loopback
        from airside.actors.launch import attach
        from airside.actors.web.listening import Tls, listen, serve_http
    except ModuleNotFoundError as error:
        raise InvalidConfig(f"serve needs {error.name}, which is not installed: pip install 'airside[http]'") from None

    if (tls_cert is None) != (tls_key is None):
        raise Misuse("give --tls-cert and --tls-key, both or neither")
    tls = Tls(certificate=tls_cert, key=tls_key) if tls_cert is not None and tls_key is not None else None
    names, proxies = tuple(allowed_host or ()), tuple(trusted_proxy or ())
    if tls is None and not proxies and not is_loopback(host):
        raise Misuse(
            f"--host {host}: credentials would be sent in clear: give --tls-cert and --tls-key, or --trusted-proxy of "
            "what stands before it and has a certificate"
        )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    scheme = "http" if tls is None else "https"
    with contextlib.closing(StackConnection(lambda: attach(state_dir))) as stack:
        listener = listen(address, names, option="--host", name_option="--allowed-host", scheme=scheme)
        typer.echo(f"serving on {listener.url}/v1", err=True)
        app = http_api(stack, names)
        if console:
            typer.echo(f"the console is {listener.url}{PREFIX}", err=True)
            app = with_console(app, Console(stack, names))
        asyncio.run(serve_http(app, listener, tls=tls, trusted_proxies=proxies))
