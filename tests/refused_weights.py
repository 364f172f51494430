"""Refusals of checkpoints."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from refusals import good
from safetensors.numpy import save_file

from posembed_jax import hf

FOLDER = tempfile.TemporaryDirectory(prefix="refused_weights")  # removed when the process ends
ROOT = Path(FOLDER.name)
MODEL = ROOT / "model.safetensors"
EMPTY, TWO, LOST = ROOT / "empty", ROOT / "two", ROOT / "lost"
for folder in (EMPTY, TWO, LOST):
    folder.mkdir()
TENSORS = {
    "text.positions.weight": np.zeros((5, 2), np.float32),
    "image.positions.weight": np.zeros((7, 2), np.float32),
    "text.position_ids": np.arange(5),
}
save_file(TENSORS, MODEL)
for name in ("a", "b"):
    save_file({"x": np.zeros(2, np.float32)}, TWO / f"{name}.safetensors")
(LOST / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}))
(ROOT / "model.bin").write_bytes(b"")

READ = good(hf.read, path=MODEL, tensors={"table": "text.positions.weight"})

BERT = {"model_type": "bert", "vocab_size": 3, "max_position_embeddings": 5, "hidden_size": 2}
BERT_TENSORS = {
    f"embeddings.{k}_embeddings.weight": np.zeros((n, 2), np.float32) for k, n in (("word", 3), ("position", 5))
}
save_file(BERT_TENSORS | {"relative_position.weight": np.zeros(2, np.float32)}, ROOT / "bert.safetensors")
LOAD = good(hf.load, path=ROOT / "bert.safetensors", config=BERT)
UMT5 = {"model_type": "umt5", "vocab_size": 3, "d_model": 2}


def read_without_safetensors(path):
    before = sys.modules["safetensors"]
    sys.modules["safetensors"] = None
    try:
        return READ(path=path)
    finally:
        sys.modules["safetensors"] = before


ROWS = [
    (READ, "tensors", {"table": 3}, TypeError, "tensors['table'] is 3; it needs to be the name of a tensor", ""),
    (
        READ,
        "tensors",
        {"table": "ositions.weight"},
        ValueError,
        "tensors has ['ositions.weight'], which ... has not",
        "",
    ),
    (
        READ,
        "tensors",
        {"table": "positions.weight"},
        ValueError,
        "tensors['table'] is 'positions.weight', of which ... has ['image.positions.weight', 'text.pos ... say which",
        "",
    ),
    (
        READ,
        "tensors",
        {"table": hf.Stored("text.positions.weight", shape=(None, 3))},
        ValueError,
        "text.positions.weight is F32[5, 2]; it needs to be floating [None, 3]: is it of this model?",
        "",
    ),
    (READ, "tensors", {"x": "position_ids"}, ValueError, "text.position_ids is I64[5]; it needs to be floating:", ""),
    (READ, "path", str(EMPTY), FileNotFoundError, "which has []; it needs to have one .safetensors file"),
    (READ, "path", str(TWO), FileNotFoundError, "which has ['a.safetensors', 'b.safetensors']; it needs to have one"),
    (
        READ,
        "path",
        str(LOST),
        FileNotFoundError,
        "it needs the file ... model-1.safetensors', which is not there",
        "path is ",
    ),
    (READ, "path", ROOT / "no.safetensors", FileNotFoundError, "no.safetensors', which is not there", "path is "),
    (READ, "path", ROOT / "model.bin", ValueError, "model.bin'; it needs to be a .safetensors file", "path is "),
    (read_without_safetensors, "path", MODEL, ImportError, "safetensors is not installed; ... pip install", ""),
    (LOAD, "path", ROOT / "bert.safetensors", ValueError, "tensors has ['relative_position.weight'], which belong", ""),
    (
        LOAD,
        "config",
        UMT5,
        ValueError,
        "relative_attention_bias.weight are there for []; it needs to be each",
        "tensors ",
    ),
    (
        LOAD,
        "config",
        {"model_type": "prophetnet"},
        ValueError,
        "'prophetnet'; the name of 'table' at '' is not known",
        "",
    ),
    (LOAD, "config", {"model_type": "t5_gemma_module"}, ValueError, "the names of whose arrays are not known", ""),
]
