"""Times, lengths of time and amounts of money, as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def clock(at_us: int) -> str:
    """Return a time as people read it, in UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def span(us: int) -> str:
    """Return a length of time as people read it."""
    seconds = us / 1e6
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.1f}s" if seconds >= 1 else f"{us / 1000:.0f}ms"


def money(microusd: int) -> str:
    """Return an amount in US dollars."""
    return f"${microusd / 1e6:.4f}"
