"""How budgets stand: what is set aside and what is spent, in the present window, of a tenant or of the organisation."""

from __future__ import annotations

from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.ids import TenantId

NOW = 1_700_000_000_000_000
DAY_US = 86_400 * 1_000_000
ACME = TenantId("acme")


def test_a_budget_stands_at_what_is_reserved_and_spent_in_its_window() -> None:
    """A day later one of a day begins again, and one for ever goes on."""
    made = BudgetReservations(
        [Cap(unit="tokens", limit=100)],
        {"acme": [Cap(unit="tokens", limit=50), Cap(unit="tokens", limit=20, per="day")]},
    )
    made.ledger.reserve("sure", "tenant/acme", {"tokens": 7}, now_us=NOW, settled=True)
    made.ledger.reserve("open", "tenant/acme", {"tokens": 5}, now_us=NOW)

    def standing(tenant: TenantId | None, now_us: int) -> list[tuple[str, int, int, int]]:
        return [(each.per, each.limit, each.reserved, each.spent) for each in made.standings(tenant, now_us=now_us)]

    assert standing(ACME, NOW) == [("ever", 50, 5, 7), ("day", 20, 5, 7)]
    assert standing(None, NOW) == [("ever", 100, 5, 7)] and standing(TenantId("beta"), NOW) == []
    later = standing(ACME, NOW + DAY_US)
    assert later[0] == ("ever", 50, 5, 7) and later[1][3] == 0
    begins = [each.begins_us for each in made.standings(ACME, now_us=NOW)]
    assert begins == [0, NOW - NOW % DAY_US]
