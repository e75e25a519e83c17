"""A server that speaks the protocols of model providers, for tests and benchmarks: it says what it is told to say.

It speaks OpenAI's chat completions (`/v1/chat/completions`), its batches (`benchmarks/batch_server.py`) and Anthropic's
messages (`/v1/messages`), and can be slow, cut the connection, refuse, fail, leave out what it used, and write what no
model should; as streams, if it is asked so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from benchmarks.batch_server import BatchServer
from benchmarks.stream_writers import anthropic_stream, openai_stream

Body = dict[str, Any]
Line = tuple[str, bool]
"""A line of a stream, and whether it has text of the answer."""


@dataclass(frozen=True, kw_only=True)
class Saying:
    """One answer.  `calls` are `(tool, arguments as text, id)`; `used` = tokens read and written, None: not said.

    Where it is asked for as a stream: `cut_after` = words after which the connection is cut or, if it `ends_early`,
    the stream ends as if the answer were whole; `word_s` = the time between two words.
    """

    text: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    finish: str = ""
    used: tuple[int, int] | None = (100, 20)
    status: int = 200
    retry_after: str = ""
    after_s: float = 0.0
    cut: bool = False
    garbage: bool = False
    cut_after: int | None = None
    ends_early: bool = False
    word_s: float = 0.0


def call(tool: str, arguments: object, call_id: str = "call_1") -> Saying:
    """Return an answer that calls one tool."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Saying(calls=((tool, written, call_id),))


@dataclass
class ModelServer:
    """What a server was asked, and where it is.  `say` gives the answer to a request's JSON."""

    say: Callable[[Body], Saying]
    port: int = 0
    bodies: list[Body] = field(default_factory=list)
    most_at_once: int = 0
    batches: BatchServer = field(init=False)
    _at_once: int = 0

    def __post_init__(self) -> None:
        self.batches = BatchServer(lambda body: _in_batch(self.say(body), body))

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def _handle(
        self, request: web.Request, write: Callable[[Saying, Body], Body], stream: Callable[[Body], Iterator[Line]]
    ) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        saying = self.say(body)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if saying.after_s:
                await asyncio.sleep(saying.after_s)
        finally:
            self._at_once -= 1
        if saying.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if saying.status != 200:
            headers = {"Retry-After": saying.retry_after} if saying.retry_after else {}
            error = {"error": {"type": "error", "message": saying.text or "no"}, "type": "error"}
            return web.json_response(error, status=saying.status, headers=headers)
        if saying.garbage:
            return web.Response(text="<html>it works</html>", content_type="application/json")
        if body.get("stream"):
            return await _streamed(request, saying, stream(write(saying, body)))
        return web.json_response(write(saying, body))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer as OpenAI does."""
        return await self._handle(request, _as_openai, openai_stream)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer as Anthropic does."""
        return await self._handle(request, _as_anthropic, anthropic_stream)


async def _streamed(request: web.Request, saying: Saying, lines: Iterator[Line]) -> web.StreamResponse:
    """Write an answer word by word."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    words = 0
    for line, is_text in lines:
        if is_text and words == saying.cut_after:
            if not saying.ends_early:
                assert request.transport is not None
                await asyncio.sleep(0.05)  # what was written is to arrive
                request.transport.abort()
            break
        words += is_text
        if is_text and saying.word_s:
            await asyncio.sleep(saying.word_s)
        await response.write(line.encode())
    return response


def _as_openai(saying: Saying, body: Body) -> Body:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}
        for tool, arguments, call_id in saying.calls
    ]
    message: Body = {"role": "assistant", "content": saying.text or None}
    if calls:
        message["tool_calls"] = calls
    finish = saying.finish or ("tool_calls" if calls else "stop")
    answer: Body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if saying.used is not None:
        read, wrote = saying.used
        answer["usage"] = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    return answer


def _in_batch(saying: Saying, body: Body) -> tuple[int, Body]:
    """Return an answer as a line of OpenAI's batches has it, which take its newer protocol."""
    if saying.status != 200:
        return saying.status, {"error": {"type": "error", "message": saying.text or "no"}}
    output: list[Body] = []
    if saying.text:
        content = [{"type": "output_text", "text": saying.text, "annotations": []}]
        output.append({"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content})
    for tool, arguments, call_id in saying.calls:
        called = {"type": "function_call", "id": f"f-{call_id}", "call_id": call_id, "name": tool}
        output.append(called | {"arguments": arguments, "status": "completed"})
    answer: Body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": body["model"],
        "status": "incomplete" if saying.finish == "length" else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if saying.finish == "length" else None,
        "output": output,
    }
    if saying.used is not None:
        read, wrote = saying.used
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        answer["usage"] = {"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote} | details
    return 200, answer


def _as_anthropic(saying: Saying, body: Body) -> Body:
    content: list[Body] = [{"type": "text", "text": saying.text}] if saying.text else []
    for tool, arguments, call_id in saying.calls:
        content.append({"type": "tool_use", "id": call_id, "name": tool, "input": json.loads(arguments)})
    finish = {"length": "max_tokens", "": "tool_use" if saying.calls else "end_turn"}.get(saying.finish, saying.finish)
    read, wrote = saying.used or (0, 0)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": finish,
        "stop_sequence": None,
        "usage": {"input_tokens": read, "output_tokens": wrote},
    }


def in_order(*sayings: Saying) -> Callable[[Body], Saying]:
    """Return what says these one after the other, the last one again and again."""
    left: Iterator[Saying] = itertools.chain(sayings, itertools.repeat(sayings[-1]))
    return lambda _: next(left)


@contextmanager
def serving(say: Callable[[Body], Saying]) -> Iterator[ModelServer]:
    """Serve on a port of loopback, in a thread of its own."""
    server, loop = ModelServer(say), asyncio.new_event_loop()
    ready = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", server.chat)
        app.router.add_post("/v1/messages", server.messages)
        server.batches.routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
