"""Memory: what runs may recall and what is worth keeping.  `embedder`, `quality`, `store` (LanceDB), `service`.

`onnx_embedder` (with `onnx_export`) and `endpoint_embedder` are other embedders than the default.
"""
