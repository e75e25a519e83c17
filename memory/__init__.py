"""Memory: what runs may recall and what is worth keeping.

    from airside.memory import Candidate, MemoryRules, remember

`service` joins everything, `tenant` is one tenant's.  Writing: `writing`, with what `privacy` says of a text, and
`storage`.  Reading: `embedding`, and `search`, whose calibrations `evaluation` fits.  `embedders` has the contract, the
default and others; `rules` and `records` are the values; `local` is memory in one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airside.stack.lazy_names import lazy_names

if TYPE_CHECKING:
    from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder
    from airside.memory.embedders.endpoint_embedder import EndpointEmbedder
    from airside.memory.embedders.onnx_embedder import OnnxEmbedder
    from airside.memory.rules import Kind, MemoryRules, Quota, Weights
    from airside.stack.contracts.memory import Candidate
    from airside.stack.reasons import MemoryCode
    from airside.tools.keeping import remember

_HOME = {
    "airside.memory.embedders.embedder": ["Embedder", "SentenceTransformerEmbedder"],
    "airside.memory.embedders.endpoint_embedder": ["EndpointEmbedder"],
    "airside.memory.embedders.onnx_embedder": ["OnnxEmbedder"],
    "airside.memory.rules": ["Kind", "MemoryRules", "Quota", "Weights"],
    "airside.stack.contracts.memory": ["Candidate"],
    "airside.stack.reasons": ["MemoryCode"],
    "airside.tools.keeping": ["remember"],
}

__all__ = [
    "Candidate",
    "Embedder",
    "EndpointEmbedder",
    "Kind",
    "MemoryCode",
    "MemoryRules",
    "OnnxEmbedder",
    "Quota",
    "SentenceTransformerEmbedder",
    "Weights",
    "remember",
]

__getattr__, __dir__, _ = lazy_names(__name__, _HOME)
