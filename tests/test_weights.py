"""Checkpoints: the arrays that a file has, as ours, and nothing else."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import posembed_jax as pe
from posembed_jax import hf

RNG = np.random.default_rng(0)
TABLE, BIAS = RNG.normal(size=(7, 4)).astype(np.float32), RNG.normal(size=(32, 8)).astype(np.float32)
TOKENS, T5 = "model.embed_tokens.weight", "encoder.relative_attention_bias.weight"


@pytest.fixture(params=["file", "folder", "index", "sharded folder"])
def path(request, tmp_path):
    """The same tensors in every way that transformers writes them."""
    if request.param in ("file", "folder"):
        save_file({TOKENS: TABLE, T5: BIAS}, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors" if request.param == "file" else str(tmp_path)
    save_file({TOKENS: TABLE}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({T5: BIAS}, tmp_path / "model-00002-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {name: f"model-0000{i}-of-00002.safetensors" for i, name in ((1, TOKENS), (2, T5))}})
    )
    return index if request.param == "index" else tmp_path


def test_tensors_become_ours(path):
    found = hf.read(path, {"tokens": TOKENS, "table": hf.Stored(T5, shape=(32, None), then=np.transpose)})
    np.testing.assert_array_equal(found["tokens"], TABLE)
    np.testing.assert_array_equal(
        pe.T5Bias(heads=8, bidirectional=True).bind({"table": found["table"]}).arrays["table"], BIAS.T
    )


def test_a_name_may_lack_the_prefix_of_a_larger_model(path):
    assert hf.read(path, {0: "embed_tokens.weight"})[0].shape == (7, 4)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
def test_dtypes(stored, tmp_path):
    """As they are stored; a cast goes through no narrower one."""
    table = TABLE.astype(jnp.dtype(stored))
    save_file({"x": table}, tmp_path / "a.safetensors")
    found = hf.read(tmp_path, {"x": "x"})["x"]
    assert found.dtype == stored
    np.testing.assert_array_equal(np.asarray(found), table)
    wide = hf.read(tmp_path, {"x": "x"}, dtype=jnp.float32)["x"]
    np.testing.assert_array_equal(wide, table.astype(np.float32))


def test_kernels_of_interleaved_pairs_become_halves(tmp_path):
    """The logits are the same after it, and were not before."""
    heads, dim, features, length = 2, 4, 6, 5
    query, key = (RNG.normal(size=(heads * dim, features)).astype(np.float32) for _ in range(2))
    x = RNG.normal(size=(1, length, features)).astype(np.float32)
    save_file({"q": query, "k": key}, tmp_path / "model.safetensors")
    turn = functools.partial(pe.permute_layout, source="interleaved", target="half", heads=heads, axis=0)
    halves = hf.read(tmp_path, {name: hf.Stored(name, then=turn) for name in "qk"})

    def logits(kernels, layout):
        rope, positions = pe.RoPE(dim=dim, layout=layout).bind({}), pe.positions.arange(length)
        q, k = (rope((x @ w.T).reshape(1, length, heads, dim), positions) for w in kernels)
        return np.einsum("btnd,bsnd->bnts", q, k)

    assert np.abs(logits((query, key), "half") - logits((query, key), "interleaved")).max() > 0.1
    np.testing.assert_allclose(
        logits(halves.values(), "half"), logits((query, key), "interleaved"), rtol=1e-5, atol=1e-5
    )


def test_axes_of_size_1_in_front(tmp_path):
    """A table [1, T, F] of a vision transformer is [T, F], a row [F] is a table [1, F], and a grid is its rows."""
    grid = TABLE[:6].reshape(1, 2, 3, 4)
    save_file({"table": TABLE[None, None], "row": TABLE[0], "grid": grid}, tmp_path / "a.safetensors")
    wanted = {"table": hf.Stored("table", shape=(7, 4)), "row": hf.Stored("row", shape=(1, None))}
    wanted["grid"] = hf.Stored("grid", shape=(6, 4))
    found = hf.read(tmp_path, wanted)
    np.testing.assert_array_equal(found["table"], TABLE)
    np.testing.assert_array_equal(found["row"], TABLE[:1])
    np.testing.assert_array_equal(found["grid"], TABLE[:6])
    with pytest.raises(ValueError, match=r"table is F32\[1, 1, 7, 4\]; it needs to be floating \[28\]"):
        hf.read(tmp_path, {"table": hf.Stored("table", shape=(28,))})
