"""What the server says of itself and of the stack: whether they are there, how the layers are, and what the API is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from starlette.responses import Response

from airside.actors.api.call import Call, as_json, look
from airside.actors.api.messages import Alive, Listing
from airside.stack.errors import LayerUnavailable
from airside.stack.operations.questions import LayerHealth, Nothing

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "airside"
_GAUGES = {
    "up": "Whether a layer of the stack answers.",
    "ready": "Whether it has all that it needs.",
    "up_seconds": "For how long its present process has been there.",
}


async def live(_: Call) -> Alive:
    """Say that the server is alive."""
    return Alive(status="live")


async def ready(call: Call) -> Alive:
    """Say that the stack behind the server answers; 503 while it does not."""
    if not await call.stack.is_ready():
        raise LayerUnavailable("the stack does not answer")
    return Alive(status="ready")


async def me(call: Call) -> Response:
    """Say who holds the credential, and what that one may, and how far: own runs, the tenant, or all tenants."""
    return as_json(await look(call, "me", Nothing()))


async def document(call: Call) -> Response:
    """Return this API as an OpenAPI 3.1 document."""
    return as_json(call.server.document)


async def health(call: Call) -> Response:
    """Show of each layer of the stack whether it answers."""
    return as_json(await look(call, "health", Nothing()))


async def metrics(call: Call) -> Response:
    """Return whether layers are up, and what the server answered, in the text format that Prometheus reads."""
    layers = msgspec.json.decode(await look(call, "health", Nothing()), type=Listing[LayerHealth]).items
    text = "".join(f"{line}\n" for line in (*_of_layers(layers), *_of_requests(call.server.counts)))
    return Response(text, media_type=METRICS_TYPE)


def _of_layers(layers: Sequence[LayerHealth]) -> Iterator[str]:
    for name, says in _GAUGES.items():
        yield f"# HELP {_PREFIX}_layer_{name} {says}"
        yield f"# TYPE {_PREFIX}_layer_{name} gauge"
        for each in layers:
            value = each.up_s if name == "up_seconds" else int(getattr(each, name))
            yield f'{_PREFIX}_layer_{name}{{layer="{_label(each.layer)}"}} {value}'


def _of_requests(counts: Mapping[tuple[str, int], int]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_http_requests_total Requests of the HTTP API that were answered."
    yield f"# TYPE {_PREFIX}_http_requests_total counter"
    for (route, status), count in sorted(counts.items()):
        yield f'{_PREFIX}_http_requests_total{{route="{_label(route)}",status="{status}"}} {count}'


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
