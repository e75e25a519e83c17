"""The bundled MiniLM with int8 matrices, run by ONNX Runtime on one thread of the processor.

Its vectors are close to those of full precision (`python -m benchmarks.embedders` prints how close) and not the same,
so it has a name of its own.  The model is made once, on this machine and without a network, and kept in a folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airside.memory.embedders.embedder import (
    CHARACTERS_A_TOKEN,
    MINILM_SHA256,
    Vectors,
    bundled_minilm,
    checked_name,
    readable,
)
from airside.memory.embedders.onnx_export import EXPORT_VERSION, MODEL_FILE
from airside.stack.errors import Failed, InvalidConfig

WINDOW_TOKENS = 256
"""What MiniLM was trained to read, as its `sentence_bert_config.json` says."""

EXPORT_S = 600.0
"""How long making the model may take: it is 15 s on a core of its own."""

SHA256_FILE = MODEL_FILE + ".sha256"


class OnnxEmbedder:
    """MiniLM in whole numbers; needs the extra `onnx` (`pip install airside[onnx]`).

    `folder` is where the model is kept, by default `models` in the state directory that the environment names
    (`AIRSIDE_STATE_DIR`, else `.airside`).  The checksum beside it finds a file that was damaged, not one that was
    replaced by somebody who may write there: keep the folder as closed as the state directory.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        source = bundled_minilm()
        _need("onnxruntime")
        import onnxruntime
        from tokenizers import Tokenizer

        self.name = checked_name("all-MiniLM-L6-v2-int8")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # An arena keeps what the longest text took; without one, memory is asked for anew, which costs nothing here.
        options.enable_cpu_mem_arena = False
        model = _checked_model(Path(folder) if folder is not None else _default_folder())
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.dimension = int(self._session.get_outputs()[0].shape[1])
        self._tokenizer: Any = Tokenizer.from_file(str(source / "tokenizer.json"))
        self._tokenizer.enable_truncation(WINDOW_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text; texts beyond the model's window are cut by it.

        Each is embedded alone: activations of a batch share one scale, so that a text's vector would depend on its
        neighbours, and padding them to one length costs more than a batch saves.
        """
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._tokenizer.encode(readable(text, WINDOW_TOKENS * CHARACTERS_A_TOKEN)).ids
            row[:] = self._session.run(None, {"ids": np.array([ids], dtype=np.int64)})[0][0]
        return rows


def _default_folder() -> Path:
    return Path(os.environ.get("AIRSIDE_STATE_DIR", ".airside")) / "models"


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InvalidConfig(f"OnnxEmbedder needs {package}, which is not installed: pip install 'airside[onnx]'")


def _checked_model(folder: Path) -> bytes:
    """Return the model, made if it is not there yet; raise `InvalidConfig` if it is not the one that was made."""
    kept = folder / f"minilm-int8-{MINILM_SHA256[:16]}-{EXPORT_VERSION}"
    try:
        if not kept.is_dir():
            _make(kept)
        model = (kept / MODEL_FILE).read_bytes()
        expected = (kept / SHA256_FILE).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{kept}: {error}; remove it, or give OnnxEmbedder(folder) another folder") from None
    found = hashlib.sha256(model).hexdigest()
    if found != expected:
        raise InvalidConfig(f"{kept / MODEL_FILE}: sha256 {found} is not the one beside it: remove {kept}")
    return model


def _make(kept: Path) -> None:
    """Export the model and its checksum under another name, then rename both at once: it is there whole, or not."""
    _need("onnx")
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=kept.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir(mode=0o700)
        _export(made)
        model = made / MODEL_FILE
        (made / SHA256_FILE).write_text(hashlib.sha256(model.read_bytes()).hexdigest() + "\n", "ascii")
        for path in (model, made / SHA256_FILE, made):
            _sync(path)
        try:
            made.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another process was first, and made the same
                raise


def _export(folder: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and a folder of our own
            [sys.executable, "-m", "airside.memory.embedders.onnx_export", str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=EXPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"the export of MiniLM to ONNX did not end in {EXPORT_S:.0f} s") from None
    if done.returncode != 0:
        raise Failed(f"the export of MiniLM to ONNX failed ({done.returncode}): {done.stderr.strip()[-500:]}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
