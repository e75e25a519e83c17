"""The pure core: what a governed run is, with no Ray, no clock, no randomness and no I/O of its own.

Reading order: `reasons`, `values`, `events`, `machine`, `cycle`, then `policy` and `gate`, `approvals`, `admission`.
"""
