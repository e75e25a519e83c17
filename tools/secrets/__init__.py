"""Secrets of tenants: where they are (`providers`), which are given out (`known`), that none is shown (`redaction`)."""
