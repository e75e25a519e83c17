"""What calls a tool's function in a sandbox: `worker.py FOLDERS`, on a socket as its standard input.

It stands alone, as `confine.py`, and imports of Airside only what the function itself does.  It is given the functions
of one tool, with what calling them takes besides, says whether it could load them, is given one call, says what came of
that, and ends.  A message is its size in four bytes, and so many bytes; what it says is a word, a line feed, and JSON
or a sentence.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

_MAX_TEXT = 12_000
"""Far more than is shown of it: secrets are taken out of a text before it is bounded, outside."""

_NOT_DONE = "airside.tools.tool._NotDone"
_SAID = {"airside.tools.tool.ToolError": "tool_error", "airside.tools.tool.InDoubt": "in_doubt"}


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException, *, named: bool = True) -> bytes:
    try:
        text = str(error)
    except BaseException:
        text = ""
    name = type(error).__name__
    text = (f"{name}: {text}" if text else name) if named or not text else text
    return text[:_MAX_TEXT].encode(errors="backslashreplace")


def _answer(functions: dict[str, Any], what: str, given: list[Any], arguments: dict[str, Any]) -> tuple[str, bytes]:
    import orjson

    try:
        output = functions[what](*given, **arguments)
        if hasattr(output, "__await__"):
            output = _awaited(output)
    except BaseException as error:
        for kind in type(error).__mro__:
            if (word := _SAID.get(_named(kind))) is not None:
                return _later(error) if word == "tool_error" else (word, _text(error, named=False))
        return "error", _text(error)
    if _named(type(output)) == _NOT_DONE:
        return "not_done", b""
    try:
        return "ok", orjson.dumps(output)
    except BaseException as error:
        return "unfit", _text(error)


def _later(error: Any) -> tuple[str, bytes]:
    """Return what a `ToolError` says, with the seconds after which the call may go well, if it says any."""
    try:
        after_s = error.retry_after_s
        said = b"" if after_s is None else f"{float(after_s)!r} ".encode()
    except BaseException:
        said = b""
    return "not_now" if said else "tool_error", said + _text(error, named=False)


def _awaited(answer: Any) -> Any:
    import asyncio

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait())


def _receive(sock: socket.socket) -> bytes:
    """Return the next message; the process ends if there will be none."""
    head = sock.recv(4, socket.MSG_WAITALL)
    size = int.from_bytes(head, "big")
    data = sock.recv(size, socket.MSG_WAITALL) if len(head) == 4 else b""
    if len(head) < 4 or len(data) < size:
        os._exit(0)
    return data


def _send(sock: socket.socket, word: str, data: bytes) -> None:
    body = word.encode() + b"\n" + data
    sock.sendall(len(body).to_bytes(4, "big") + body)


def main() -> None:
    """Load, call, answer."""
    sys.path += json.loads(sys.argv[1])
    sock = socket.socket(fileno=os.dup(0))  # which no program that the tool starts is given
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)  # what it prints is a log, not an answer
    try:
        import cloudpickle
        import orjson  # noqa: F401 - before the call, whose time it is not

        functions, _ = cloudpickle.loads(_receive(sock))
    except BaseException as error:
        _send(sock, "broken", _text(error))
        os._exit(0)
    _send(sock, "ready", b"")
    try:
        what, given, arguments = cloudpickle.loads(_receive(sock))
    except BaseException as error:
        word, data = "invalid", _text(error)
    else:
        word, data = _answer(functions, what, given, arguments)
    sys.stdout.flush()
    _send(sock, word, data)
    os._exit(0)


if __name__ == "__main__":
    main()
