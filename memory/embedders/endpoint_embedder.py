"""Embedding by a server: whatever answers `POST {url}/embeddings` as OpenAI's API does.

The texts leave this machine, unless the URL is loopback.  No redirect is followed and no proxy used: what is sent
goes where the URL says, or nowhere.  Nothing a server says is believed before it is checked, and nothing of it is
repeated in an error, for it may hold the key.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from airside.memory.embedders.embedder import Vectors, checked_name, readable
from airside.stack.canonical import parse_bounded
from airside.stack.errors import Failed, InvalidConfig, InvalidInput
from airside.stack.webhooks import sending_target

PAUSES_S = (0.25, 1.0)
"""Between attempts: runs wait for what they recall, and go on without it if that is not to be had."""

TEXTS_A_REQUEST = 32
"""Servers bound what one request may hold; this many of `max_characters` are a quarter of a megabyte."""

MAX_DIMENSION = 65_536

_MODEL_CHARACTERS = 256

_BYTES_A_NUMBER = 40
"""A float64 in JSON has at most 24 characters; the rest is for commas, spaces and line ends."""

_OVERHEAD_BYTES = 64 * 1024
"""For everything in an answer that is no number of a vector."""

_NOTHING = "."
"""Sent for an empty text, which servers refuse."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""Capitals only, so that a key given instead of a variable's name is not taken for one, and not shown."""

_URL = re.compile(r"[!-~]+")
_KEY = re.compile(r"[!-~]+")


class EndpointEmbedder:
    """A model behind an OpenAI-compatible endpoint.

    `url` is the API's base (`https://api.openai.com/v1`), `model` what the server calls the model, `dimension` what
    its vectors have.  `key_env` names the environment variable, of the process that embeds, that holds the API key; it
    is read at every request.  `name` is stored with the vectors, by default `endpoint:HOST/MODEL`: give one to keep
    them when the same model moves.  `insecure` allows plain `http` to elsewhere, where others on the way read texts
    and key.  `timeout_s` is for making a connection, and again for the whole answer; there are three attempts.
    `max_characters` of a text are sent.  Raises `InvalidConfig` here and `Failed` when embedding.
    """

    def __init__(
        self,
        url: str,
        model: str,
        dimension: int,
        *,
        key_env: str | None = None,
        name: str | None = None,
        insecure: bool = False,
        timeout_s: float = 10.0,
        max_characters: int = 8_000,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _URL.fullmatch(url) or "?" in url or "#" in url:
            raise InvalidConfig("embeddings endpoint: give the base URL in ASCII, without a query: https://HOST/v1")
        self._target = sending_target(
            url,
            what="embeddings endpoint",
            credentials="name the variable that holds the key as key_env",
            insecure=insecure,
            exception="insecure",
        )
        if not model or readable(model, _MODEL_CHARACTERS) != model:
            raise InvalidConfig(f"embeddings endpoint: model {model!r:.100}: give the model's name at the server")
        if type(dimension) is not int or not 1 <= dimension <= MAX_DIMENSION:
            raise InvalidConfig(f"embeddings endpoint: dimension {dimension!r:.40}: give 1 to {MAX_DIMENSION}")
        if not (0 < timeout_s < math.inf) or max_characters < 1:
            raise InvalidConfig("embeddings endpoint: timeout_s and max_characters must be above 0")
        if key_env is not None and not _VARIABLE.fullmatch(key_env):
            raise InvalidConfig("embeddings endpoint: key_env is the name of a variable, in capitals, and no key")
        self.name = checked_name(name if name is not None else f"endpoint:{self._target.hostname}/{model}")
        self.dimension = dimension
        self._model = model
        self._key_env = key_env
        self._timeout_s = timeout_s
        self._max_characters = max_characters
        self._pause = pause
        self._tls = ssl.create_default_context() if self._target.scheme == "https" else None
        self._headers()  # what is no key is said now

    def __repr__(self) -> str:
        return f"EndpointEmbedder({self.name})"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text; raise `Failed` if the endpoint gives none, or others than it should."""
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(texts), TEXTS_A_REQUEST):
            some = [readable(text, self._max_characters) or _NOTHING for text in texts[first : first + TEXTS_A_REQUEST]]
            rows[first : first + len(some)] = self._vectors(some)
        return rows

    def _vectors(self, texts: list[str]) -> Vectors:
        body = orjson.dumps({"model": self._model, "input": texts})
        max_bytes = _OVERHEAD_BYTES + len(texts) * self.dimension * _BYTES_A_NUMBER
        try:
            answer = parse_bounded(self._ask(body, max_bytes), max_bytes=max_bytes, where="answer")
        except InvalidInput:
            raise self._failed(f"its answer is no JSON of at most {max_bytes:,} bytes") from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise self._failed("its answer has no list of embeddings: is it an OpenAI-compatible API?")
        rows: dict[int, Any] = {item["index"]: item for item in data if type(item.get("index")) is int}
        if len(data) != len(texts) or rows.keys() != set(range(len(texts))):
            raise self._failed(f"it was given {len(texts)} texts, and answered others, or another number of them")
        return np.stack([self._unit(rows[place].get("embedding")) for place in range(len(texts))])

    def _unit(self, numbers: Any) -> Vectors:
        """Return one vector of an answer, of unit length."""
        if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
            raise self._failed("an embedding is not a list of numbers")
        if len(numbers) != self.dimension:
            raise self._failed(f"an embedding has {len(numbers)} numbers, where dimension is {self.dimension}")
        # `hypot` neither overflows nor underflows on the way, as a sum of squares would.
        length = math.hypot(*numbers)
        if not 0 < length < math.inf:
            raise self._failed("an embedding has no direction: it is zero, or not finite")
        return np.asarray(np.array(numbers, dtype=np.float64) / length, dtype=np.float32)

    def _ask(self, body: bytes, max_bytes: int) -> bytes:
        """Return the answer's body; try again if the endpoint is busy, broken or away."""
        for pause_s in (*PAUSES_S, None):
            try:
                status, answer = self._post(body, max_bytes)
            except ssl.SSLCertVerificationError as error:
                raise self._failed(f"its certificate does not hold ({error.verify_message})") from None
            except OSError as error:
                problem = f"{type(error).__name__} ({error.strerror or error})"
            except http.client.HTTPException as error:
                problem = f"{type(error).__name__}: it does not speak HTTP, or broke off"
            else:
                if status == 200:
                    return answer
                problem = f"it answered with status {status}"
                if status != 429 and status < 500:
                    raise self._failed(f"{problem}: look at the URL, the model's name and the key")
            if pause_s is not None:
                self._pause(pause_s)
        raise self._failed(f"{problem}, the last of {len(PAUSES_S) + 1} attempts")

    def _post(self, body: bytes, max_bytes: int) -> tuple[int, bytes]:
        """Send it once; return status and body, cut a byte beyond the bound."""
        headers = self._headers()
        connection = self._connection()
        is_late = threading.Event()
        try:
            connection.connect()
            sock = connection.sock

            def break_off() -> None:
                is_late.set()
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

            # The socket's own timeout begins anew with every byte that trickles in.
            timer = threading.Timer(self._timeout_s, break_off)
            timer.daemon = True
            timer.start()
            try:
                answer = _exchange(connection, self._target.path.rstrip("/") + "/embeddings", headers, body, max_bytes)
            except (OSError, http.client.HTTPException):
                if not is_late.is_set():
                    raise
            finally:
                timer.cancel()
            if is_late.is_set():  # an answer without a length just seems to end
                raise TimeoutError(f"no whole answer in {self._timeout_s:g} s")
            return answer
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._target.hostname, self._target.port
        assert host is not None
        # The port is always said: without one, the last part of an IPv6 address would be taken for it.
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port or 443, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port or 80, timeout=self._timeout_s)

    def _headers(self) -> dict[str, str]:
        """Return what is sent with a request; raise `InvalidConfig` if there is no key where there should be one."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._key_env is not None:
            key = os.environ.get(self._key_env, "").strip()
            if not _KEY.fullmatch(key):
                raise InvalidConfig(f"embeddings endpoint: ${self._key_env} is not set, or is no key")
            headers["authorization"] = f"Bearer {key}"
        return headers

    def _failed(self, problem: str) -> Failed:
        return Failed(f"embeddings endpoint {self._target.hostname}, model {self._model!r:.100}: {problem}")


def _exchange(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str], body: bytes, max_bytes: int
) -> tuple[int, bytes]:
    connection.request("POST", path, body, headers)
    with connection.getresponse() as response:
        answer = response.read(max_bytes + 1)
        if response.length and len(answer) <= max_bytes:
            raise http.client.IncompleteRead(b"", response.length)
        return response.status, answer
