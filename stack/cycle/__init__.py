"""The cycle: what carries a run's instructions out through the ports, and its parts."""
