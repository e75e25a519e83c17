"""Operators' orders: made by whoever holds the stack's keys, opened by the driver."""

from __future__ import annotations

import getpass
from typing import Any, get_args

from airside.actors.rpc.layer import now_us
from airside.actors.rpc.stubs import encode
from airside.stack.canonical import as_text
from airside.stack.errors import Misuse
from airside.stack.operations.messages import ORDER_PURPOSE, Order
from airside.stack.policy.kill_switches import SwitchScope
from airside.stack.security.seals import wrap


def sealed_order(seal_key: bytes, action: Any, scope: Any, target: str, why: str, **more: Any) -> bytes:
    """Return an order of whoever runs this process, sealed; what `why` has that is no text does not hold it up."""
    order = Order(
        action=action,
        scope=scope,
        target=as_text(target),
        by=as_text(f"operator-{getpass.getuser()}"),
        why=as_text(why),
        at_us=now_us(),
        **more,
    )
    return wrap(seal_key, ORDER_PURPOSE, encode(order))


def switch_target(target: dict[str, Any]) -> tuple[str, str]:
    """Return scope and target; raise `Misuse` unless exactly one that exists is named."""
    if len(target) != 1 or not target.keys() <= set(get_args(SwitchScope)) or not all(target.values()):
        raise Misuse(f"switch: say one of {', '.join(get_args(SwitchScope))}, not {sorted(target)}")
    ((scope, name),) = target.items()
    if (scope == "principal" and "/" not in name) or (scope == "all" and name is not True):
        raise Misuse(f"switch: {scope} {name!r:.80}: a principal is TENANT/PRINCIPAL, and all is everything")
    return scope, "" if scope == "all" else name
