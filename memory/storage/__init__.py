"""Records on disk: one table a tenant, durable in groups, erased for good, exported."""
