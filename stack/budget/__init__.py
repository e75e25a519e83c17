"""Budgets: the ledger, what decisions and calls set aside of it, and what the journal says was used."""
