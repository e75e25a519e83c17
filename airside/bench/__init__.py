"""Load benchmarks: what a stack carries, and what becomes of its tenants under load.  `airside bench`.

`slo`, `arrivals`, `mix`, `search`, `fairness`, `pace`, `compare` and `replay` are pure; `latencies` holds histograms,
`session` what is open and what became of it, `target`, `usage` and `journaled` are the stack's side, `bench` plays it
all, and `figures`, `charts` and `report` show what was found.
"""
