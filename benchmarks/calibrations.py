"""Fit the calibrations that are shipped, on all sets of questions in `benchmarks/data`.

    python -m benchmarks.calibrations

They are written to `memory/calibrations/`: the bundled MiniLM's, the int8 one's where the extra `onnx` is installed,
and `generic`, for embedders that have none.  Fit them anew when the signals, the terms or the sets change.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from airside.memory.embedders.embedder import SentenceTransformerEmbedder
from airside.memory.evaluation.question_sets import calibrated
from airside.memory.search.calibration import GENERIC, save_calibration
from benchmarks.memory_quality import RememberingEmbedder

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Fit and write each, and print what it is worth."""
    sets = sorted((ROOT / "benchmarks" / "data").glob("*.jsonl"))
    minilm = RememberingEmbedder(SentenceTransformerEmbedder())
    fitted = [calibrated(sets, minilm, minilm.name), calibrated(sets, minilm, GENERIC, relative=True)]
    if importlib.util.find_spec("onnxruntime") is not None:
        from airside.memory.embedders.onnx_embedder import OnnxEmbedder

        int8 = OnnxEmbedder()
        fitted.append(calibrated(sets, RememberingEmbedder(int8), int8.name))
    for each in fitted:
        place = save_calibration(each, ROOT / "memory" / "calibrations")
        worth = {"questions": each.questions, "error": each.error, "gate": each.gate, "floor": each.floor}
        print(json.dumps({"file": str(place.relative_to(ROOT)), **worth}))


if __name__ == "__main__":
    main()
