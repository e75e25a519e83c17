"""Sandboxes: what one is made of (`command`, `confine`), how far this machine can make one (`probe`), one at work."""
