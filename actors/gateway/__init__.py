"""The gateway: clients of the Model Context Protocol call a stack's tools, each call a run of who makes it.

- `calls`: calls as runs: how they begin, how they stand, who may ask
- `answers`: what a client is answered of that, in the protocol's words
- `server`: the protocol's methods, for any transport
- `http`, `stdio`: the two transports
"""
