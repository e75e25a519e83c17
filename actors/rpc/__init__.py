"""Calls between actors: a typed table of methods, how a layer serves them, and the transport under both."""
