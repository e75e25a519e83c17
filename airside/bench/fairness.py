"""How evenly tenants are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index: 1 if all are alike, 1/n if one has everything (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984).

    Of nobody, and where nobody has anything, it is 1: nobody is worse off than another.
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def shares_of(asked: Mapping[str, int], got: Mapping[str, int]) -> list[float]:
    """Return which part each tenant got of what it asked for; who asked for nothing has none."""
    return [got.get(tenant, 0) / count for tenant, count in asked.items() if count]
