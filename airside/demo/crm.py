"""A small CRM in DuckDB, one file a tenant, and the tools over it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from airside import Tool, ToolContext, ToolError, tool

CUSTOMERS = [
    ("Northwind", "buyer@northwind.example", "forklift leasing", 84_000, 10),
    ("Contoso", "purchasing@contoso.example", "cold storage", 132_000, 45),
]
"""Name, address, what they want, its list price in EUR, the discount they ask for in percent."""

CLAUSES = [
    ("Northwind", "Payment within 90 days", "high", "Payment within 30 days"),
    ("Northwind", "Unlimited liability", "high", "Liability capped at the contract's value"),
    ("Contoso", "Delivery penalty of 5 % a day", "high", "Delivery penalty of 0.5 % a day, at most 5 %"),
]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (name VARCHAR, email VARCHAR, need VARCHAR, list_price INTEGER, wish INTEGER);
CREATE TABLE IF NOT EXISTS clauses (customer VARCHAR, clause VARCHAR, risk VARCHAR, counter VARCHAR);
CREATE TABLE IF NOT EXISTS proposals (key VARCHAR PRIMARY KEY, customer VARCHAR, discount INTEGER, body VARCHAR);
"""


@dataclass
class Crm:
    """The tenants' databases, opened where the tools run and kept open there."""

    folder: Path

    def __post_init__(self) -> None:
        self._lock: Any = None
        self._open: dict[str, Any] = {}

    def rows(self, tenant: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a tenant's database and return its rows."""
        if self._lock is None:
            self._lock = threading.Lock()
        with self._lock:
            if tenant not in self._open:
                self._open[tenant] = self._connect(tenant)
            found: list[tuple[Any, ...]] = self._open[tenant].execute(sql, list(parameters)).fetchall()
            return found

    def _connect(self, tenant: str) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        database = duckdb.connect(str(self.folder / f"{tenant}.duckdb"))
        database.execute(_SCHEMA)
        if not database.execute("SELECT 1 FROM customers").fetchall():
            database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", CUSTOMERS)
            database.executemany("INSERT INTO clauses VALUES (?, ?, ?, ?)", CLAUSES)
        return database


def crm_tools(folder: Path) -> list[Tool]:
    """Return the CRM's tools over the databases in `folder`."""
    crm = Crm(folder)

    @tool(effect="read")
    def crm_customer(customer: str, context: ToolContext) -> dict[str, Any]:
        """Return a customer's address, need, list price in EUR, and the discount they ask for in percent."""
        rows = crm.rows(context.tenant, "SELECT * FROM customers WHERE name = ?", customer)
        if not rows:
            raise ToolError(f"no customer {customer}")
        return dict(zip(("name", "email", "need", "list_price", "wish"), rows[0], strict=True))

    @tool(effect="read")
    def crm_risks(customer: str, context: ToolContext) -> list[dict[str, Any]]:
        """Return the clauses a customer asks for that are risky, each with the counter-proposal."""
        sql = "SELECT clause, counter FROM clauses WHERE customer = ? ORDER BY clause"
        return [{"clause": c, "counter": p} for c, p in crm.rows(context.tenant, sql, customer)]

    @tool(effect="write", idempotent=True)
    def crm_save_proposal(customer: str, discount_percent: int, body: str, context: ToolContext) -> str:
        """Save a proposal; the same idempotency key saves it once."""
        sql = "INSERT INTO proposals VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        crm.rows(context.tenant, sql, context.idempotency_key, customer, discount_percent, body)
        return context.idempotency_key

    return [crm_customer, crm_risks, crm_save_proposal]
