"""Policy: bundles and their rules, the gate that decides by them, and what is refused at load."""
