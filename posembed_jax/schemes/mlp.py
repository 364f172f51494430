"""The small network of some biases: a few numbers in, one of each head out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax.scheme import Arrays, Initializer


def uniform(fan_in: int, *shape: int) -> Initializer:
    """Uniform in `+-1 / sqrt(fan_in)`, kernels and biases, as PyTorch's linear layers begin."""
    most = fan_in**-0.5
    return Initializer(shape, lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -most, most))


def mlp_inits(inputs: int, hidden: int, heads: int) -> dict[str, Initializer]:
    """Of arrays that lead with heads or 1, as those of every bias do."""
    return {
        "hidden_kernel": uniform(inputs, 1, inputs, hidden),
        "hidden_bias": uniform(inputs, 1, hidden),
        "out_kernel": uniform(hidden, heads, hidden),
        "out_bias": uniform(hidden, heads),
    }


def mlp(arrays: Arrays, x: jax.Array) -> jax.Array:
    """`out_kernel relu(x hidden_kernel + hidden_bias) + out_bias`: x `[..., inputs]` -> `[heads, ...]`, of its dtype.

    Without out_bias where there is none.
    """
    kernel, bias, out_kernel = (arrays[name].astype(x.dtype) for name in ("hidden_kernel", "hidden_bias", "out_kernel"))
    hidden = jnp.einsum("...i,zih->...h", x, kernel, precision=lax.Precision.HIGHEST)
    hidden = jax.nn.relu(hidden + bias.reshape(*[1] * (x.ndim - 1), -1))
    out = jnp.einsum("...h,nh->n...", hidden, out_kernel, precision=lax.Precision.HIGHEST)
    return out + arrays["out_bias"].astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) if "out_bias" in arrays else out


def log_spaced(x: jax.Array) -> jax.Array:
    """`sign(x) log2(1 + 8 abs(x)) / log2(8)`: -1 ... 1 about as it was, with more room for what is small."""
    return jnp.sign(x) * jnp.log2(1.0 + 8.0 * jnp.abs(x)) / 3.0
