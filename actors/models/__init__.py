"""Model callers: the one layer that holds providers' keys and imports their clients."""
