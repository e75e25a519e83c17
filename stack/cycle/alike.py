"""What the runs of a principal hold alike, once for all of them: who asks, with what limits, and which tools it has.

Runs wait in thousands, and every one is read from the journal by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from airside.stack.run.events import RunSubmitted
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Identity

KEPT = 4_096
"""Identities at once; what is forgotten is held twice from then on, and no worse."""

_encode = msgspec.msgpack.Encoder().encode


class Known(NamedTuple):
    """An identity, as it is sent, and the tools whose scopes it has."""

    identity: Identity
    encoded: bytes
    tools: tuple[ToolSpec, ...]


class Alike:
    """The identities that a process's runs were seen to have."""

    def __init__(self, specs: Sequence[ToolSpec]) -> None:
        self._specs = specs
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def known(self, identity: Identity) -> Known:
        """Return what is known of an identity."""
        encoded = _encode(identity)
        found = self._known.get(encoded)
        if found is None:
            tools = tuple(spec for spec in self._specs if set(spec.scopes) <= set(identity.scopes))
            found = self._known[encoded] = Known(identity, encoded, tools)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found

    def shared(self, submitted: RunSubmitted) -> RunSubmitted:
        """Return a run's first event with the identity and the limits that other runs have.

        Its inputs are copied out of the text that it was read from, which they would keep whole.
        """
        identity = self.known(submitted.identity).identity
        return msgspec.structs.replace(
            submitted,
            identity=identity,
            limits=identity.limits if submitted.limits == identity.limits else submitted.limits,
            request=msgspec.structs.replace(submitted.request, inputs=msgspec.Raw(bytes(submitted.request.inputs))),
        )
