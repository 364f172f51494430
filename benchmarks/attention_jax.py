"""What `attention.py` measures in the environment `jax`: posembed_jax, JAX peers and the limit.

`TASKS[task][name](setting)` gives a function of no arguments that does the work once and waits for the end. It knows
`temp_bytes`, what the compiled program needs beside its arguments and results, and `arrays()`, the results to compare.
The learned arrays are arguments, so every call makes its bias from them.
"""

from __future__ import annotations

import functools
import math

import attention_inputs
import jax
import jax.numpy as jnp
import limit
import numpy as np
from attention_inputs import WIDTH
from biases import ARRAY, BOUND
from jax import lax

import posembed_jax as pe
from posembed_jax.attention.tiles import tile_size

PACKAGES = ("posembed_jax", "jax", "jaxlib", "tokamax")


def device() -> str:
    return jax.devices()[0].device_kind


# ---------------------------------------------------------------- candidates
# Each is a function of the name of the bias, query, key and value [1, S, N, D], and the learned arrays of the bias.


def ours(implementation):
    def attention(bias, q, k, v, params):
        return pe.attend(q, k, v, bias=BOUND[bias](params), causal=True, implementation=implementation)

    return attention


def bias_array(bias, q, params):
    """`[1, N, S, S]` in the type of the query, as these peers are called in models."""
    return ARRAY[bias](params, q.shape[1])[None].astype(q.dtype)


def dot_product_attention(bias, q, k, v, params):
    return jax.nn.dot_product_attention(q, k, v, bias=bias_array(bias, q, params), is_causal=True)


def dot_product_attention_without_bias(bias, q, k, v, params):
    return jax.nn.dot_product_attention(q, k, v, is_causal=True)


def einsum_and_softmax(bias, q, k, v, params):
    """Softmax in float32, products in the type of the query."""
    logits = jnp.einsum("btnd,bsnd->bnts", q, k).astype(jnp.float32) / math.sqrt(WIDTH)
    logits = logits + ARRAY[bias](params, q.shape[1])
    causal = jnp.tril(jnp.ones(logits.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(causal, logits, -jnp.inf))
    return jnp.einsum("bnts,bsnd->btnd", weights.astype(v.dtype), v)


def tokamax(implementation):
    def attention(bias, q, k, v, params):
        import tokamax

        array = bias_array(bias, q, params)
        return tokamax.dot_product_attention(q, k, v, bias=array, is_causal=True, implementation=implementation)

    return attention


def matmuls(bias, q, k, v, params):
    length, heads = q.shape[1:3]
    return limit.attention(math.gcd(tile_size((1, heads, length, length)) or length, length))(q, k, v)


CANDIDATES = {
    "posembed_jax xla": ours("xla"),
    "posembed_jax reference": ours("reference"),
    "jax.nn.dot_product_attention, bias as an array": dot_product_attention,
    "einsum and softmax, bias as an array": einsum_and_softmax,
    "tokamax xla, bias as an array": tokamax("xla"),
    "tokamax xla_chunked, bias as an array": tokamax("xla_chunked"),
    "jax.nn.dot_product_attention, no bias": dot_product_attention_without_bias,
    "the matmuls alone, tile by tile": matmuls,
}
WITHOUT_BIAS = ("jax.nn.dot_product_attention, no bias", "the matmuls alone, tile by tile")


# ---------------------------------------------------------------- tasks


def arguments(setting, biased: bool):
    """query, key, value, learned arrays and cotangent; all but the learned arrays in the dtype of the setting."""
    arrays = {name: jnp.asarray(x, setting["dtype"]) for name, x in attention_inputs.heads(setting["length"]).items()}
    params = {name: jnp.asarray(x) for name, x in attention_inputs.learned(setting["bias"]).items()} if biased else {}
    return arrays["query"], arrays["key"], arrays["value"], params, arrays["cotangent"]


def forward(attention):
    return lambda q, k, v, params, cotangent: {"output": attention(q, k, v, params)}


def forward_and_backward(attention):
    """The output, as training needs it for the loss, and the gradients to query, key, value and learned arrays."""

    def both(q, k, v, params, cotangent):
        output, pull = jax.vjp(attention, q, k, v, params)
        dq, dk, dv, dparams = pull(cotangent)
        return {"output": output, "query": dq, "key": dk, "value": dv, **{f"bias {n}": x for n, x in dparams.items()}}

    return both


class Compiled:
    """A function jitted and compiled for its arguments, to be called with them and waited for."""

    def __init__(self, function, arguments, gib: float):
        self.arguments = arguments
        self.compiled = jax.jit(function, keep_unused=True).lower(*arguments).compile()
        self.temp_bytes = self.compiled.memory_analysis().temp_size_in_bytes
        if self.temp_bytes > gib * 2**30:
            raise MemoryError(f"would need {self.temp_bytes / 2**30:.1f} GiB")

    def __call__(self):
        return jax.block_until_ready(self.compiled(*self.arguments))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(x, np.float32) for name, x in self().items()}


def build(name, task, setting):
    function = task(functools.partial(CANDIDATES[name], setting["bias"]))
    return Compiled(function, arguments(setting, name not in WITHOUT_BIAS), setting["gib"])


TASKS = {
    name: {candidate: functools.partial(build, candidate, task) for candidate in CANDIDATES}
    for name, task in {"forward": forward, "forward+backward": forward_and_backward}.items()
}


# ---------------------------------------------------------------- truth


def write_truth(setting, biased: bool, path: str):
    """Writes what candidates are compared with: the reference in float32, from the same inputs, a few rows at a time.

    So it needs little memory at any length. Inputs are rounded to the dtype of the setting first.
    """
    *heads, params, cotangent = arguments(setting, biased)
    q, k, v, cotangent = (x.astype(jnp.float32) for x in (*heads, cotangent))
    rows, positions = math.gcd(128, setting["length"]), jnp.arange(setting["length"])

    def attention(q, k, v, params):
        bias = BOUND[setting["bias"]](params) if biased else None

        def some_rows(queries_and_positions):
            queries, query_positions = queries_and_positions
            where = {"query_positions": query_positions, "key_positions": positions}
            return pe.attend(queries, k, v, bias=bias, causal=True, implementation="reference", **where)

        parts = q.reshape(-1, 1, rows, *q.shape[2:]), positions.reshape(-1, rows)
        return lax.map(jax.checkpoint(some_rows), parts).reshape(q.shape)

    function = forward_and_backward(attention)
    np.savez(path, **Compiled(function, (q, k, v, params, cotangent), math.inf).arrays())
