"""Kill switches: what an operator has switched off, for whom, by whom, why, and until when.

They are a fold of durable events, held by every layer that starts something: the Driver (admission), Policy (the gate)
and the executors.  A switch is set once it is durable and every one of them has it: from then on no new effect that
it covers starts anywhere.  It does not end what is at work; `kill` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from airside.stack.ids import PrincipalId, RunId, TenantId, root_of
from airside.stack.values import Value

SwitchScope = Literal["all", "tenant", "principal", "run", "tool", "version"]
STREAM = "switches"
"""The journal's stream of `KillSwitchChanged`, in the chain of the system's own tenant."""


class KillSwitchChanged(Value, tag="SwitchThrown"):
    """A kill switch was switched off or on.

    `target` names what (nothing for `all`; `TENANT/PRINCIPAL` for a principal).  One that is `off` stays so until
    `until_us`, or until it is switched on if that is 0.  `tenant` is that of whose operator it is, empty for those who
    run the stack.
    """

    at_us: int
    scope: SwitchScope
    target: str
    off: bool
    by: PrincipalId
    why: str = ""
    until_us: int = 0
    tenant: str = ""

    def __str__(self) -> str:
        what = f"{self.scope} {self.target}".strip()
        return f"{what} is switched off by {self.by}: {self.why}" if self.off else f"{what} is on"


_decoder = msgspec.json.Decoder(KillSwitchChanged)


def decode_change(data: bytes | str) -> KillSwitchChanged:
    """Decode a journaled switch."""
    return _decoder.decode(data)


class KillSwitches:
    """What is off."""

    def __init__(self, bodies: Iterable[bytes | str] = ()) -> None:
        self._off: dict[tuple[str, str], KillSwitchChanged] = {}
        for body in bodies:
            self.apply(decode_change(body))

    def __bool__(self) -> bool:
        """Whether anything was switched off and not on again: nearly always nothing is, and no time need be asked."""
        return bool(self._off)

    def apply(self, change: KillSwitchChanged) -> None:
        """Take a durable event in; the latest about a target holds."""
        if change.off:
            self._off[change.scope, change.target] = change
        else:
            self._off.pop((change.scope, change.target), None)

    def off(self, now_us: int) -> list[KillSwitchChanged]:
        """Return what is off now, oldest first."""
        return sorted((s for s in self._off.values() if _holds(s, now_us)), key=lambda s: s.at_us)

    def withheld(self, change: KillSwitchChanged, *, now_us: int) -> KillSwitchChanged | None:
        """Return the switch that a change would replace and may not: what others set no tenant takes back."""
        standing = self._off.get((change.scope, change.target))
        if standing is None or not change.tenant or not _holds(standing, now_us):
            return None
        return None if standing.tenant == change.tenant else standing

    def blocking(
        self,
        *,
        now_us: int,
        tenant: TenantId,
        principal: PrincipalId,
        version: str = "",
        run_id: RunId | None = None,
        tool: str = "",
    ) -> KillSwitchChanged | None:
        """Return the switch that is in the way of this principal's run or call, if there is one."""
        if not self._off:
            return None
        places = [("all", ""), ("tenant", tenant), ("principal", f"{tenant}/{principal}"), ("version", version)]
        places += [("tool", tool)] if tool else []
        places += [("run", root_of(run_id))] if run_id else []
        found = (self._off.get(place) for place in places)
        return next((s for s in found if s is not None and _holds(s, now_us)), None)


def _holds(change: KillSwitchChanged, now_us: int) -> bool:
    return change.until_us == 0 or now_us < change.until_us
