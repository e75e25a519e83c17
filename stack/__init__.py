"""The pure core: what a governed run is, with no Ray, no clock and no randomness of its own.

What decides does no I/O.  Files are read where an app is loaded (`input.yaml_source`: policies and directories), and
the stack's keys are read, and made, in `security.keyring`, which also takes the system's randomness for them.

Packages, each importing only those before it: `text`, `input`, `schema`, `contracts`, `run`, `budget`, `scheduling`,
`security`, `journal`, `approvals`, `provenance`, `policy`, `cycle`, `operations`, `recovery`.  Beside them stand the
values all of them use, `resources`, `directory` and `webhooks`, and `ports`, the contracts with the layers.

Reading order: `reasons`, `values`, `run`, `cycle`, then `policy`, `approvals`, `scheduling`.
"""
