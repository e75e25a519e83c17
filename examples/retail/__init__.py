"""A retail support desk: sixteen operations on users, orders and products kept in one SQLite file per run."""
