"""Memory: what runs may recall and what is worth keeping.  `embedder`, `quality`, `store` (LanceDB), `service`.

What a text holds that is secret or personal: `sensitive`, with `credentials` and `folding`.
"""
