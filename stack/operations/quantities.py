"""Times, lengths of time, counts and amounts of money, as people read them."""

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


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return how many there are of something, in words: `1 call`, `2,000 calls`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {plural or f'{noun}s'}"


def used(steps: int, calls: int, tokens: int, cost_microusd: int) -> str:
    """Return what runs used, in words."""
    return f"{counted(steps, 'step')}, {counted(calls, 'call')}, {counted(tokens, 'token')}, {money(cost_microusd)}"


def money(microusd: int) -> str:
    """Return an amount in US dollars."""
    return f"${microusd / 1e6:.4f}"
