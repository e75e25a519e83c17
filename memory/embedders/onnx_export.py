"""Writing the bundled MiniLM as an ONNX model whose matrices are int8; needs the extra `onnx`, and no network.

    python -m airside.memory.embedders.onnx_export FOLDER

writes FOLDER/model.onnx: token ids of one text, shape (1, length), to its unit vector, shape (1, 384).  It is a program
of its own because PyTorch and the exporter take 800 MiB, which the process that embeds would keep.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airside.memory.embedders.embedder import bundled_minilm

EXPORT_VERSION = "1"
"""Part of the exported file's name: change it with whatever changes the model that is written."""

MODEL_FILE = "model.onnx"

_OPSET = 17
"""The first with LayerNormalization as one operator; PyTorch's exporter of traced modules knows it whole."""


def export_minilm(folder: Path) -> None:
    """Write the model into a folder; the same packages write the same bytes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = folder / "whole.onnx"
    _trace(bundled_minilm(), whole)
    quantize_dynamic(
        whole,
        folder / MODEL_FILE,
        # The table of tokens stays as it is: looking up takes no time that whole numbers would save.
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        # 7 bits: with 8, processors without VNNI saturate, and would make other vectors than those that have it.
        reduce_range=True,
    )
    whole.unlink()


def _trace(source: Path, target: Path) -> None:
    """Export transformer, mean pooling and normalising in full precision.

    There is no attention mask, for a text is embedded alone and never padded.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModel

    class Sentence(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(source, attn_implementation="eager").eval()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            nothing_masked = torch.zeros_like(ids)[:, None, None, :].float()
            tokens = self.bert(input_ids=ids, attention_mask=nothing_masked).last_hidden_state
            return torch.nn.functional.normalize(tokens.mean(1), p=2, dim=1)

    torch.set_num_threads(1)
    torch.onnx.export(
        Sentence(),
        (torch.ones(1, 7, dtype=torch.long),),
        str(target),
        input_names=["ids"],
        output_names=["vector"],
        dynamic_axes={"ids": {1: "length"}},
        opset_version=_OPSET,
        dynamo=False,  # the other exporter needs three packages more
    )


if __name__ == "__main__":
    export_minilm(Path(sys.argv[1]))
