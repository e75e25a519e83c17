"""The layers as Ray actors: thin shells round the pure parts of `stack`, `tools` and `memory`.

Reading order: `rpc`, then one file per actor (`journal.journal`, `policy`, `approvals.approvals`, `executor`, `memory`,
`runtime`, `driver.driver`, `ingress`, `intake`) and `wardens`, and `launch` and `client`, which start a stack and talk
to it.
"""
