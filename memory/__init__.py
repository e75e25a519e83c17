"""Memory: what runs may recall and what is worth keeping.

`service` joins everything.  Writing: `quality` (with `sensitive`, `credentials`, `folding`), `planning` (with `alike`),
`tenant`, `store` and `files`; `erasing`, `parquet`.  Reading: `embedding`, `index`, `lexical`, `calibration`,
`ranking`.  `rules` and `records` are the values; `questions` and `fitting` fit calibrations.  `embedder` is the
contract and the default, `onnx_embedder` (with `onnx_export`) and `endpoint_embedder` are others; `local` is memory in
one process.
"""
