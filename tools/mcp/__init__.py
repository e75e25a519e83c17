"""Tool servers that speak the Model Context Protocol: what they offer, what a person approved of it, their calls."""
