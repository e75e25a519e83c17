"""`run_program`: a program run within a sandbox, of whose output no more is kept than a bound.

It imports little, for it is loaded in every sandbox of a tool that uses it.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
from typing import Any

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
"""What is no part of a text, and would only act on the terminal that shows it."""

_READ_BYTES = 65_536


def run_program(argv: list[str], text: str, max_bytes: int) -> dict[str, Any]:
    """Run a program on a text as its input; return what it wrote, at most so many bytes of each, and its exit code.

    What it writes beyond is read and dropped, so that it can end; a program it leaves behind is not waited for.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(  # noqa: S603 - to run it is what the sandbox is for
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        written = _streams(process, text.encode(), max_bytes)
        code = process.wait()
        said = {
            name: _HIDDEN.sub("\ufffd", bytes(data).decode(errors="replace")) for name, (data, _) in written.items()
        }
    return {"exit_code": code, **said, "truncated": any(is_cut for _, is_cut in written.values())}


def _streams(process: subprocess.Popen[bytes], data: bytes, max_bytes: int) -> dict[str, tuple[bytearray, bool]]:
    """Write a program's input and read its output and errors until it ended and closed them."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    cut = dict.fromkeys(kept, False)
    left = memoryview(data)
    with selectors.DefaultSelector() as select:
        select.register(process.stdout, selectors.EVENT_READ, "stdout")
        select.register(process.stderr, selectors.EVENT_READ, "stderr")
        select.register(process.stdin, selectors.EVENT_WRITE, "stdin")
        while select.get_map():
            ready = select.select(_LOOK_S)
            if not ready and process.poll() is not None:
                break  # what it left behind holds them open
            for key, _ in ready:
                name, file = key.data, key.fd
                if name == "stdin":
                    left = _written(file, left)
                    if not left:
                        select.unregister(process.stdin)
                        process.stdin.close()
                    continue
                got = os.read(file, _READ_BYTES)
                if not got:
                    select.unregister(key.fileobj)
                kept[name] += got[: max_bytes - len(kept[name])]
                cut[name] = cut[name] or (bool(got) and len(kept[name]) == max_bytes)
    return {name: (kept[name], cut[name]) for name in kept}


_LOOK_S = 0.2
"""How long nothing must come of a program that has ended for its output to be whole."""


def _written(descriptor: int, left: memoryview) -> memoryview:
    """Return what is still to be written; nothing, if nobody reads it."""
    try:
        return left[os.write(descriptor, left[:_PIPE_BYTES]) :]
    except BrokenPipeError:
        return left[:0]


_PIPE_BYTES = 4096
"""What a pipe that can be written to takes at once, without that one waits."""
