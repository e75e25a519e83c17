"""Turning text into vectors: the contract, and the bundled model, ONNX Runtime or a server behind it."""
