"""What the journal promises, as pure parts: fencing, the keyed chain, and claims of keys."""
