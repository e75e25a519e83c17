"""A client of a stack's HTTP API (`airside serve`), for services that have no Ray."""

from airside.actors.api.messages import RunResult

try:
    from airside.http_client.async_client import AsyncClient
    from airside.http_client.client import Client
    from airside.http_client.streams import RunNews
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ImportError("airside.client: it asks by httpx2: pip install 'airside[client]'") from None

__all__ = ["AsyncClient", "Client", "RunNews", "RunResult"]
