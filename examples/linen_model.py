"""The byte-level GPT of `train_language_model.py` in Flax Linen, as short as it can be, trained on this very file.

python examples/linen_model.py --positions rope
"""

import argparse
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import posembed_jax as pe
from posembed_jax import linen

LENGTH, FEATURES, HEADS = 64, 64, 4
SCHEMES = {
    "none": None,
    "learned": pe.LearnedPositions(length=LENGTH, features=FEATURES, stddev=1.0),
    "sinusoidal": pe.Sinusoidal(features=FEATURES),
    "rope": pe.RoPE(dim=FEATURES // HEADS, layout="half"),
    "t5": pe.T5Bias(heads=HEADS, max_distance=LENGTH, bidirectional=False, stddev=1.0),
    "alibi": pe.ALiBi(heads=HEADS),
}


class GPT(nn.Module):
    scheme: pe.scheme.Scheme | None  # its kind says where it acts
    layers: int = 2

    @nn.compact
    def __call__(self, ids):
        """int32 `[B, T]` -> logits `[B, T, 256]`."""
        positions = pe.positions.arange(ids.shape[1])
        tokens = linen.TokenEmbed(256, FEATURES, stddev=FEATURES**-0.5, scale=FEATURES**0.5)
        scheme = self.scheme and linen.Scheme(self.scheme)  # one module: the layers share T5's bias, as in T5
        rotation = scheme if isinstance(self.scheme, pe.Rotation) else None
        bias = scheme if isinstance(self.scheme, pe.Bias) else None
        x = tokens(ids)
        if isinstance(self.scheme, pe.Additive):
            x = x + scheme(positions)
        for _ in range(self.layers):
            x = x + linen.Attention(HEADS, rotation=rotation, bias=bias)(nn.RMSNorm()(x), positions)
            y = nn.Dense(4 * FEATURES, use_bias=False)(nn.RMSNorm()(x))
            x = x + nn.Dense(FEATURES, use_bias=False)(nn.gelu(y))
        return tokens.logits(nn.RMSNorm()(x))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", choices=SCHEMES, default="rope")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(argv)

    text = jnp.frombuffer(pathlib.Path(__file__).read_bytes(), jnp.uint8).astype(jnp.int32)
    model, optimizer = GPT(SCHEMES[options.positions]), optax.adamw(4e-3)
    variables = model.init(jax.random.key(0), text[None, :LENGTH])

    def loss(variables, ids):
        logits = model.apply(variables, ids[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean()

    @jax.jit
    def step(variables, state, key):
        starts = jax.random.randint(key, (8, 1), 0, len(text) - LENGTH)
        value, gradients = jax.value_and_grad(loss)(variables, text[starts + jnp.arange(LENGTH + 1)])
        updates, state = optimizer.update(gradients, state, variables)
        return optax.apply_updates(variables, updates), state, value

    state = optimizer.init(variables)
    for i in range(options.steps):
        variables, state, value = step(variables, state, jax.random.key(i))
        if i % 10 == 0 or i == options.steps - 1:
            print(f"{options.positions}, step {i}: loss {value:.4f}")


if __name__ == "__main__":
    main()
