"""OpenAI's batches as a server has them, for tests and benchmarks: files, batches, and their answers.

A batch is at work until it is let go (`finish`, or `is_held` False): then each of its questions is answered as the
server's `say` says, by the protocol that OpenAI's batches take here (`/v1/responses`).
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]


@dataclass
class BatchServer:
    """The files and batches of one account.  `answer` makes the body of an answer to a question's body, or a status."""

    answer: Callable[[Body], tuple[int, Body]]
    is_held: bool = False
    drops_creation: bool = False
    """The next creation is carried out, and its connection cut."""

    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Body] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    """How often each question was given to a model, by what it asks."""

    polls: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def routes(self, app: web.Application) -> None:
        """Serve."""
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_delete("/v1/files/{id}", self._delete)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)

    def _file(self, data: bytes) -> str:
        name = f"file-{next(self._numbers)}"
        self.files[name] = data
        return name

    async def _upload(self, request: web.Request) -> web.Response:
        data = (await request.post())["file"]
        assert isinstance(data, web.FileField)
        name = self._file(data.file.read())
        size = len(self.files[name])
        return web.json_response(
            {
                "id": name,
                "object": "file",
                "bytes": size,
                "created_at": int(time.time()),
                "filename": data.filename,
                "purpose": "batch",
                "status": "processed",
            }
        )

    async def _content(self, request: web.Request) -> web.Response:
        found = self.files.get(request.match_info["id"])
        return _missing() if found is None else web.Response(body=found)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self.files.pop(name, None)
        return web.json_response({"id": name, "object": "file", "deleted": True})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = f"batch_{next(self._numbers)}"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        self.asked.update(json.dumps(line["body"]["input"]) for line in lines)
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "in_progress",
            "created_at": int(time.time()),
            "metadata": body.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        if self.drops_creation:
            self.drops_creation = False
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(self.batches[name])

    async def _list(self, request: web.Request) -> web.Response:
        latest = list(reversed(self.batches.values()))
        return web.json_response({"object": "list", "data": latest, "has_more": False})

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _missing()
        self.polls += 1
        if not self.is_held and batch["status"] == "in_progress":
            self._finish(batch)
        return web.json_response(batch)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        if batch["status"] == "in_progress":
            batch["status"] = "cancelled"
        return web.json_response(batch)

    def _finish(self, batch: Body) -> None:
        answered: list[bytes] = []
        failed: list[bytes] = []
        for number, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
            asked = json.loads(line)
            status, body = self.answer(asked["body"])
            given = {"id": f"line-{number}", "custom_id": asked["custom_id"], "error": None}
            given["response"] = {"status_code": status, "request_id": f"r-{number}", "body": body}
            (answered if status == 200 else failed).append(json.dumps(given).encode())
        batch["status"] = "completed"
        batch["output_file_id"] = self._file(b"\n".join(answered))
        if failed:
            batch["error_file_id"] = self._file(b"\n".join(failed))


def _missing() -> web.Response:
    return web.json_response({"error": {"message": "there is none", "type": "invalid_request_error"}}, status=404)
