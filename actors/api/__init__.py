"""The HTTP API of a stack, `/v1`: what people and services do by credential, each request passed on to Ingress.

The server holds no key of the stack and decides nothing: a credential goes with each question to the layer that knows
whose it is.

- `routes`: the table of all routes, which everything else is made of: dispatch, the OpenAPI document, the reference
- `messages`: what requests and replies hold
- `runs`, `approvals`, `operations`, `memory`, `audit`, `health`: what each route does
- `events`: a run as a stream of server-sent events
- `problems`: what is said of a request that was refused (RFC 9457)
- `server`: who may speak to it, and how much; `openapi`: the document; `stack_port`: a running stack behind it
"""
