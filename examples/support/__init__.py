"""Customer support by a model: it looks orders up, refunds them when a lead says so, and writes to the customer."""
