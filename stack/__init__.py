"""The pure core: what a governed run is, with no Ray, no clock, no randomness and no I/O of its own.

Packages, each importing only those before it: `text`, `input`, `schema`, `contracts`, `run`, `budget`, `scheduling`,
`security`, `journal`, `approvals`, `provenance`, `policy`, `cycle`, `operations`, `recovery`.  Beside them stand the
values all of them use, `resources`, `directory` and `webhooks`, and `ports`, the contracts with the layers.

Reading order: `reasons`, `values`, `run`, `cycle`, then `policy`, `approvals`, `scheduling`.
"""
