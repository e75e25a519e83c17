"""The transport between processes of one node: length-prefixed frames over a unix-domain socket.

A Ray call costs some 1.7 ms of CPU whatever it carries, a frame here a twentieth of that (`python -m
benchmarks.transport`).  What travels are requests of the table's methods, each with a number under which its answer
comes back when it is there: nobody waits for a neighbour.  Frames of one turn of the event loop leave in one write.

A connection is to one process, not to a name: it opens with a secret of that process's own, which only Ray's call to
that actor tells, and both ends look whether the other is of their own user and speaks the same table.  When it ends,
whatever was asked over it and not answered is `LayerUnavailable`, as if the layer had died: mostly it has.

Frames: a 4-byte length of what follows, a 4-byte request number, then in requests a 1-byte method number, then the
encoded value; all little-endian.  The first frame each way is the greeting.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import socket
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from airside.actors.rpc.methods import WIRE
from airside.actors.rpc.serving import REFUSED, Service
from airside.stack.errors import LayerUnavailable

logger = logging.getLogger("airside")

MAX_FRAME_BYTES = 1 << 28
"""Longest frame: far over what the stack's own bounds let through; a longer one ends the connection."""

GREETING_BYTES = 128
"""Longest greeting: before it is known who that is, nothing is kept for him."""

MAX_PEERS = 4_096
MAX_UNFINISHED_BYTES = 1 << 30
"""How many connections a process takes, and how much it keeps of the frames of all of them that are not whole yet."""

SMALL_BYTES = 1 << 20

GREETING_S = 5.0
"""Longest a peer may take to greet."""

_LENGTH = struct.Struct("<I")
_ANSWER = struct.Struct("<II")
_REQUEST = struct.Struct("<IIB")
_CREDENTIALS = struct.Struct("3i")
_MAX_PATH = 100
"""Bytes of a socket's path: the kernel takes 107."""


class Address(NamedTuple):
    """Where a process of a layer listens: on which node, at which path, and the secret that opens it.

    An empty path says that it does not: it is asked over Ray.
    """

    node_id: str
    pid: int
    path: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Address({self.path or self.node_id}, pid {self.pid})"


Keep = Callable[[bytes], bytes]
"""Keeps an answer too long for a frame and returns a ticket, by which it is collected over Ray."""


def _refused(answer: bytes) -> bytes:
    return REFUSED + b"the answer is too long"


def _hello(secret: bytes) -> bytes:
    return b"airside" + WIRE + secret


def _is_ours(transport: asyncio.BaseTransport, pid: int = 0) -> bool:
    """Whether the other end is a process of our own user (and the one with a process id, if one is given)."""
    peer = transport.get_extra_info("socket")
    found, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(uid == os.getuid() and pid in (0, found))


class _Frames(asyncio.Protocol, ABC):
    """One end of a connection: cuts what arrives into frames, and sends what was said in a turn at once."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        self._is_full = False
        self.longest = GREETING_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in whole frames; what is no frame ends the connection."""
        if self._buffer:
            self._buffer += data
            size = len(self._buffer)
            if size < _LENGTH.size:
                return
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length <= self.longest and size < _LENGTH.size + length:
                self.unfinished()
                return  # of a long frame not even the copy below is made for each piece
            data = bytes(self._buffer)
            self._buffer.clear()
        at, end = 0, len(data)
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > self.longest:
                self.abort(f"a frame of {length} bytes")
                return
            until = at + _LENGTH.size + length
            if until > end:
                break
            self.frame(data[at + _LENGTH.size : until])
            if self.transport is None or self.transport.is_closing():
                return
            at = until
        if at < end:
            self._buffer += data[at:]
            self.unfinished()

    def unfinished(self) -> None:
        """Take note that part of a frame is kept until the rest is there."""

    @abstractmethod
    def frame(self, frame: bytes) -> None:
        """Take one frame in."""

    def abort(self, why: str) -> None:
        """End the connection at once."""
        logger.warning("a connection was ended: %s", why, extra={"action": "connection_refused"})
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The other end does not read: say nothing more for now."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_full = False
        self._soon()

    def _soon(self) -> None:
        if not self._is_due and not self._is_full:
            self._is_due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._is_due = False
        if self.transport is not None and not self._is_full:
            data = self.said()
            if data:
                self.transport.write(data)

    @abstractmethod
    def said(self) -> bytes:
        """Return the frames that wait to be sent."""


class Channel(_Frames):
    """A caller's connection to one process of a layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._unsent: list[tuple[int, int, bytes]] = []
        self._number = 0
        self._process = -1
        self.is_open = False

    @classmethod
    async def open(cls, name: str, address: Address) -> Channel:
        """Connect and greet; raise `LayerUnavailable` if nobody, or somebody else, is there."""
        loop = asyncio.get_running_loop()
        channel = None
        try:
            async with asyncio.timeout(GREETING_S):
                _, channel = await loop.create_unix_connection(lambda: cls(name), address.path)
                assert channel.transport is not None
                if not _is_ours(channel.transport, address.pid):
                    raise ConnectionError("another process listens there")
                hello = _hello(address.secret)
                channel.transport.write(_LENGTH.pack(len(hello)) + hello)
                await channel.greeted
        except (OSError, TimeoutError) as error:
            if channel is not None and channel.transport is not None:
                channel.transport.abort()
            raise LayerUnavailable(f"{name}: no connection: {error}") from None
        channel.is_open = True
        channel._watch(address.pid)
        return channel

    def _watch(self, pid: int) -> None:
        """End the connection when its process does: a child that it forked would keep the socket open."""
        self._unwatch()
        with contextlib.suppress(OSError):
            self._process = os.pidfd_open(pid)
            self._loop.add_reader(self._process, self.close)

    @staticmethod
    def takes(data: bytes) -> bool:
        """Whether a request is short enough for a frame."""
        return len(data) <= MAX_FRAME_BYTES - _REQUEST.size

    def ask(self, method: int, data: bytes) -> asyncio.Future[bytes]:
        """Ask, and return the answer to be; `LayerUnavailable` if the connection ends before it is there."""
        future: asyncio.Future[bytes] = self._loop.create_future()
        if not self.is_open:
            future.set_exception(LayerUnavailable(f"{self.name}: the connection was lost"))
            return future
        number = self._number = (self._number + 1) & 0xFFFFFFFF
        self._asked[number] = future
        self._unsent.append((number, method, data))
        self._soon()
        return future

    def said(self) -> bytes:
        """Return what was asked; what its caller gave up meanwhile is not sent."""
        parts: list[bytes] = []
        for number, method, data in self._unsent:
            asked = self._asked.get(number)
            if asked is None or asked.done():
                self._asked.pop(number, None)
            else:
                parts.append(_REQUEST.pack(5 + len(data), number, method))
                parts.append(data)
        self._unsent.clear()
        return b"".join(parts)

    def frame(self, frame: bytes) -> None:
        """Take an answer in."""
        if not self.greeted.done():
            if frame == _hello(b""):
                self.longest = MAX_FRAME_BYTES
                self.greeted.set_result(None)
            else:
                self.abort("it does not speak our table")
            return
        (number,) = _LENGTH.unpack_from(frame)
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_result(frame[_LENGTH.size :])

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self.is_open = False
        self._unwatch()
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(f"the connection ended: {error}"))
        for future in self._asked.values():
            if not future.done():
                future.set_exception(LayerUnavailable(f"{self.name}: the connection was lost"))
        self._asked.clear()
        self._unsent.clear()

    def _unwatch(self) -> None:
        if self._process >= 0:
            self._loop.remove_reader(self._process)
            os.close(self._process)
            self._process = -1

    def close(self) -> None:
        """End the connection."""
        if self.transport is not None:
            self.transport.abort()


class _Peer(_Frames):
    """A layer's end of one connection.

    A caller that does not read its answers is not read from either, so that what waits for it is bounded by what it
    had asked.
    """

    def __init__(self, services: Mapping[int, Service], secret: bytes, peers: set[_Peer], keep: Keep) -> None:
        super().__init__()
        self._services = services
        self._hello = _hello(secret)
        self._peers = peers
        self._keep = keep
        self._is_known = False
        self._unsent: list[bytes] = []
        self._late = self._loop.call_later(GREETING_S, self._too_late)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who it is."""
        super().connection_made(transport)
        self._peers.add(self)
        if not _is_ours(transport):
            self.abort("it is of another user")
        elif len(self._peers) > MAX_PEERS:
            self.abort("there are too many")

    def unfinished(self) -> None:
        """Keep no more of all peers' unfinished frames than the bound."""
        if len(self._buffer) > SMALL_BYTES and sum(len(each._buffer) for each in self._peers) > MAX_UNFINISHED_BYTES:
            self.abort("what is kept of unfinished frames is too much")

    def _too_late(self) -> None:
        self.abort("it did not greet")

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it; what it asked for is done all the same, as is what a caller that died had asked over Ray."""
        self._late.cancel()
        self._peers.discard(self)
        self.transport = None
        self._unsent.clear()

    def frame(self, frame: bytes) -> None:
        """Take a request in."""
        if not self._is_known:
            self._greet(frame)
            return
        if len(frame) < 5:
            self.abort("a frame without a number")
            return
        number, method = _LENGTH.unpack_from(frame)[0], frame[4]
        service = self._services.get(method)
        if service is None:
            self._answer(number, REFUSED + b"this layer does not serve it")
            return
        service.handle(frame[5:], lambda answer: self._answer(number, answer))

    def _greet(self, frame: bytes) -> None:
        if not hmac.compare_digest(frame, self._hello):
            self.abort("it greets wrongly")
            return
        self._late.cancel()
        self._is_known, self.longest = True, MAX_FRAME_BYTES
        assert self.transport is not None
        hello = _hello(b"")
        self.transport.write(_LENGTH.pack(len(hello)) + hello)

    def _answer(self, number: int, answer: bytes) -> None:
        if self.transport is None:
            return
        if len(answer) > MAX_FRAME_BYTES - _LENGTH.size:
            answer = self._keep(answer)
        self._unsent.append(_ANSWER.pack(_LENGTH.size + len(answer), number) + answer)
        self._soon()

    def said(self) -> bytes:
        """Return the answers that wait."""
        data = b"".join(self._unsent)
        self._unsent.clear()
        return data

    def pause_writing(self) -> None:
        """Read nothing more from who does not read."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self.transport is not None:
            self.transport.resume_reading()
        super().resume_writing()


def sockets_folder(stack_id: str) -> Path:
    """Return where the processes of a stack on this node have their sockets."""
    return Path(tempfile.gettempdir()) / f"airside-{os.getuid()}" / stack_id


def _own_folder(path: Path) -> None:
    """Make a folder that only we can look into; raise `OSError` if what is there is somebody else's."""
    path.mkdir(mode=0o700, parents=False, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not ours alone")


class Listener:
    """A layer's end: takes connections at a path of its own, in a folder that only its user can look into."""

    def __init__(self, services: Mapping[int, Service], keep: Keep = _refused) -> None:
        self._services = services
        self._keep = keep
        self._secret = secrets.token_bytes(32)
        self._peers: set[_Peer] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def listen(self, folder: Callable[[], Path]) -> tuple[str, bytes]:
        """Begin to listen in a folder; return the path and the secret, or an empty path if it cannot be."""
        try:
            path = (own := folder()) / f"{os.getpid()}-{secrets.token_hex(4)}"
            if len(os.fsencode(path)) > _MAX_PATH:
                raise OSError(f"{path} is too long for a socket")
            _own_folder(own.parent)
            _own_folder(own)
            for each in own.parent.iterdir():
                _sweep(each)
                if each != own:
                    with contextlib.suppress(OSError):
                        each.rmdir()  # of a stack of before, if nothing is left in it
            self._server = await asyncio.get_running_loop().create_unix_server(self._peer, str(path), backlog=MAX_PEERS)
        except OSError as error:
            logger.warning("no socket, Ray's calls are used: %s", error, extra={"action": "no_socket"})
            return "", b""
        self._path = path
        return str(path), self._secret

    def _peer(self) -> _Peer:
        return _Peer(self._services, self._secret, self._peers, self._keep)

    def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            if peer.transport is not None:
                peer.transport.abort()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Take away what processes that are dead left."""
    for path in folder.iterdir() if folder.is_dir() else ():
        pid = path.name.partition("-")[0]
        with contextlib.suppress(OSError):
            if not (pid.isdigit() and Path("/proc", pid).exists()):
                path.unlink()
