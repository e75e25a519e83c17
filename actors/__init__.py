"""The layers as Ray actors: thin shells round the pure parts of `stack`, `tools` and `memory`.

Reading order: `names`, `batching`, `layer`, then one file per actor (`journal`, `policy`, `approvals`, `executor`,
`memory`, `runtime`, `driver`, `ingress`), and `launch` and `client`, which start a stack and talk to it.
"""
