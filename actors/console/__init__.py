"""The console: a stack's pages for people, in the server of the HTTP API, each asked for with the person's credential.

It holds no key and decides nothing: what somebody sees and does goes to Ingress as a request of the API does.

- `routes`: the table of all pages
- `server`: who may speak to it, the headers of every response, and what is said of a refusal
- `sessions`: who is logged in, and how often one may fail to; `forms`: what a form sends
- `render`: templates, in which whatever is shown is escaped, bounded and hides nothing; `vendored`: scripts of others
- `visits`: one request as its page sees it, and the ways to ask the stack
- `login`, `now`, `approvals`, `runs`, `batches`, `operations`, `audit`: the pages
- `waiting`: a call as people weigh it; `edits`: other arguments for one
- `orders`: the page that says what an order will do, before it is given; `order_kinds`: the table of them
"""
