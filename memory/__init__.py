"""Memory: what runs may recall and what is worth keeping.  `embedder`, `quality`, `store` (LanceDB), `service`."""
