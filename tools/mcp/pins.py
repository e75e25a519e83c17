"""The pins of tool servers: what each offered when a person approved it, in a file that is kept beside the app.

`mcp.lock.json` is written by `airside mcp approve` alone.  It is read when an app is checked, so that what agents and
policies are told of tools is known without a server: what is not pinned is not used.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from airside.stack.errors import InvalidConfig
from airside.stack.values import Value
from airside.tools.mcp.offer import ServerOffer

PIN_FILE = Path("mcp.lock.json")
_MAX_FILE_BYTES = 64 * 1024 * 1024


class ApprovedOffer(Value):
    """What was approved: the offer, its digest, when and by whom."""

    digest: str
    approved_at: str
    approved_by: str
    offer: ServerOffer


class _PinFile(Value):
    format: Literal[1]
    servers: dict[str, ApprovedOffer]


def read_pins(file: Path) -> dict[str, ApprovedOffer]:
    """Return the pins of a file, by server, none if there is none; raise `InvalidConfig` for one that was altered."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidConfig(f"{file}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidConfig(f"{file}: {len(data):,} bytes are over the bound of {_MAX_FILE_BYTES:,}")
    try:
        found = msgspec.json.decode(data, type=_PinFile)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidConfig(f"{file}: not a file of pins, which `airside mcp approve` writes: {error}") from None
    for name, pin in found.servers.items():
        if pin.offer.digest != pin.digest:
            raise InvalidConfig(
                f"{file}: the pin of {name} was altered: it is not what its digest says; `airside mcp approve {name}`"
            )
    return found.servers


def write_pin(file: Path, name: str, pin: ApprovedOffer) -> None:
    """Pin a server in a file, at once or not at all; the pins of others stay."""
    servers = {**read_pins(file), name: pin}
    whole = _PinFile(format=1, servers=dict(sorted(servers.items())))
    data = msgspec.json.format(msgspec.json.encode(whole, order="sorted"), indent=1) + b"\n"
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)  # it holds no secret, and others read it
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
