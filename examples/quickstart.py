"""From a sentence to the input of a transformer, and what each position scheme does with it.

python examples/quickstart.py
"""

import functools
import json

import jax
import jax.numpy as jnp
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import posembed_jax as pe
from posembed_jax import nnx as pnnx


def train_tokenizer(vocabulary):
    """A byte-pair encoding learned on the spot from docstrings of the standard library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    texts = [thing.__doc__ for module in (functools, json, str, dict, list) for thing in vars(module).values()]
    tokenizer.train_from_iterator([text for text in texts if isinstance(text, str)], trainer)
    return tokenizer


def text_to_input_embeddings():
    print("1. text -> tokens -> ids -> token embeddings + position embeddings -> input embeddings")
    tokenizer = train_tokenizer(vocabulary=600)
    sentence = "The value of a key is the value returned."
    encoding = tokenizer.encode(sentence)
    print("text:    ", sentence)
    print("tokens:  ", encoding.tokens)
    print("ids:     ", encoding.ids)
    assert tokenizer.decode(encoding.ids).strip() == sentence

    rngs = nnx.Rngs(0)
    tokens = pnnx.TokenEmbed(tokenizer.get_vocab_size(), 64, rngs=rngs)
    positions = pnnx.Scheme(pe.LearnedPositions(length=128, features=64), rngs=rngs)

    @nnx.jit
    def inputs(tokens, positions, ids):
        return tokens(ids) + positions(pe.positions.arange(ids.shape[1]))

    ids = jnp.array([encoding.ids])
    print("shapes:  ", ids.shape, "->", inputs(tokens, positions, ids).shape)


def same_id_elsewhere():
    print("\n2. one id at two places: ids [2, 4], a vocabulary of 50257, 256 features")
    ids = jnp.array([[11, 42, 7, 42], [5, 5, 50256, 0]])  # 42 stands at positions 1 and 3
    table = pe.scheme.normal(0.02, (50257, 256))(jax.random.key(0))
    scheme = pe.LearnedPositions(length=4, features=256)
    params = pe.init(scheme, jax.random.key(1))

    @jax.jit
    def embed(table, params, ids):
        tokens = pe.embed(table, ids)
        return tokens, tokens + scheme.bind(params)(pe.positions.arange(ids.shape[1]))[None]

    tokens, inputs = embed(table, params, ids)
    print("ids, token embeddings, input embeddings:", ids.shape, tokens.shape, inputs.shape)
    for name, x in (("token embeddings", tokens), ("input embeddings", inputs)):
        print(f"{name} of id 42 at positions 1 and 3: {difference(x[0, 1], x[0, 3])}")


@jax.jit
def call(bound, *positions):
    """A bound scheme is a pytree, so it is an argument like any other."""
    return bound(*positions)


def absolute_and_relative():
    rows, length, far, features, heads = 8, 12, 1_000_000, 64, 4
    print(f"\n3. absolute and relative, learned and fixed: a table of {rows} rows, {length} positions")
    here, there = pe.positions.arange(length), pe.positions.arange(length, offset=far)

    learned = pe.LearnedPositions(length=rows, features=features)
    learned = learned.bind(pe.init(learned, jax.random.key(0)))
    sinusoidal = pe.Sinusoidal(features=features).bind({})
    for name, bound in (("learned, LearnedPositions", learned), ("fixed, Sinusoidal", sinusoidal)):
        x = call(bound, here)
        nan = jnp.flatnonzero(jnp.isnan(x).any(axis=-1)).tolist()
        print(f"absolute, {name}: {x.shape} for the embeddings; NaN at positions {nan}")
    print("A position without a row is NaN under jit, never another position's row. Outside jit it is an error:")
    try:
        learned(here)
    except ValueError as error:
        print(f"  {error}")

    t5 = pe.T5Bias(heads=heads, bidirectional=False)
    t5, alibi = t5.bind(pe.init(t5, jax.random.key(1))), pe.ALiBi(heads=heads).bind({})
    rope = pe.RoPE(dim=features // heads, layout="half").bind({})
    query, key = jax.random.normal(jax.random.key(2), (2, length, heads, features // heads))

    @jax.jit
    def scores(query_positions, key_positions):
        turned = rope(query, query_positions), rope(key, key_positions)
        return jnp.einsum("tnd,snd->nts", *turned, precision="highest")

    relative = {
        "learned, T5Bias: a bias": functools.partial(call, t5),
        "fixed, ALiBi: a bias": functools.partial(call, alibi),
        "fixed, RoPE: turns queries and keys, scores": scores,
    }
    for name, function in relative.items():
        x = function(here, here)
        print(f"relative, {name} {x.shape}")
        print(f"  {difference(x, function(there, there))} when all positions move by {far:,}")
        print(f"  {difference(x, function(there, here))} when only the queries do")


def difference(x, y):
    return f"max |difference| {jnp.max(jnp.abs(x - y)):.2g}"


def main():
    text_to_input_embeddings()
    same_id_elsewhere()
    absolute_and_relative()


if __name__ == "__main__":
    main()
