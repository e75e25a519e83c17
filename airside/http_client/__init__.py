"""A client of the HTTP API, for services that have no Ray: `airside.client` offers its names.

- `requests`: what each method sends, and what it is answered
- `errors`: what a refusal is raised as
- `streams`: a run's events as they come
- `client`, `async_client`: the same methods, for threads and for event loops
"""
