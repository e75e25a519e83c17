"""A model that follows the benchmark's plans, behind OpenAI's protocol, and takes as long as models on record took.

    python -m airside.bench.model_server LATENCIES SEED

It is a process of its own, so that it holds up neither the generator nor a layer.  It says its port on stdout, and ends
when its stdin does.  What it is asked has the run's plan (the inputs of the request) and every call that was made: it
proposes the next one, or ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from airside.stack.errors import InvalidInput, LayerUnavailable

_INPUTS = "Inputs:\n"
_USED = {"prompt_tokens": 400, "completion_tokens": 40, "total_tokens": 440}

MOST_S = 600.0


def read_latencies(path: Path) -> list[float]:
    """Return the seconds of a file, one a line; raise `InvalidInput` naming the line that is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--models {path}: {getattr(error, 'strerror', '') or error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            seconds = float(line)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= MOST_S:
            raise InvalidInput(f"--models {path}, line {number}: give seconds, from 0 to {MOST_S:g}")
        found.append(seconds)
    if not found:
        raise InvalidInput(f"--models {path}: it has no latencies: give seconds, one a line")
    return found


def next_message(messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the model says to a conversation: the plan's next call, or that it is done."""
    request = next(message["content"] for message in messages if message["role"] == "user")
    calls = json.loads(request.rpartition(_INPUTS)[2])["calls"]
    done = sum(message["role"] == "tool" for message in messages)
    if done >= len(calls):
        return {"role": "assistant", "content": f"{done} calls were made"}
    name, arguments, _ = calls[done]
    call = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{done}", "type": "function", "function": call}],
    }


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request's answer."""
    message = next_message(body["messages"])
    finish = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _USED,
    }


@contextlib.contextmanager
def serving(latencies: Path, seed: int) -> Iterator[tuple[str, int]]:
    """Have the server up for as long as the block lasts; yield its URL and its process."""
    command = [sys.executable, "-m", "airside.bench.model_server", str(latencies), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        assert process.stdin is not None and process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise LayerUnavailable("the benchmark's model server did not start")
        try:
            yield f"http://127.0.0.1:{port}/v1", process.pid
        finally:
            process.stdin.close()


async def _serve(latencies_s: Sequence[float], rng: Random) -> None:
    from aiohttp import web  # Ray's dependency, and a second to import

    async def chat(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        await asyncio.sleep(rng.choice(latencies_s))
        return web.json_response(answer(body))

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(read_latencies(Path(sys.argv[1])), Random(sys.argv[2])))  # noqa: S311 - a load, no secret
