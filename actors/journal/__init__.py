"""The journal: a log that is durable, tables that follow it, its actor, and the readings of both."""
