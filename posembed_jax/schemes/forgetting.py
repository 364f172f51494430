"""Gates by which each token makes the past fade (the Forgetting Transformer)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays


@jax.custom_jvp
def cumulative_gates(log_gates: jax.Array) -> jax.Array:
    """Sums of all gates up to each token, for `ForgettingGate`: float32 `[..., S, N]` -> `[..., S, N, 2]`.

    A sum is two float32, a number and what its rounding lost: at token 100,000 a single one would be wrong by as much
    as the gate of the last. The gradient is a sum of all that come after.

    Args:
        log_gates: floating `[S, N]` or `[B, S, N]`: `jax.nn.log_sigmoid(x @ kernel + bias)`, at most 0.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.cumulative_gates(jnp.array([[-1.0], [-0.25], [-0.5]]))[..., 0].tolist()
    [[-1.0], [-1.25], [-1.75]]

    Source: https://arxiv.org/abs/2503.02130, section 3.
    """
    checks.rank("log_gates", log_gates, {2, 3}, "floating [S, N] or [B, S, N]")
    checks.floating("log_gates", log_gates, "floating [S, N] or [B, S, N]")
    x = log_gates.astype(checks.compute_dtype(log_gates.dtype))
    return jnp.stack(lax.associative_scan(_add, (x, jnp.zeros_like(x)), axis=x.ndim - 2), axis=-1)


@cumulative_gates.defjvp
def _cumulative_gates_jvp(primals, tangents):
    found = cumulative_gates(*primals)
    tangent = jnp.cumsum(tangents[0].astype(found.dtype), axis=tangents[0].ndim - 2)
    return found, jnp.stack([tangent, jnp.zeros_like(tangent)], axis=-1)


def _add(x: tuple[jax.Array, jax.Array], y: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The sum of two sums, each a number and what its rounding lost (Knuth's two-sum)."""
    total = x[0] + y[0]
    part = total - x[0]
    lost = (x[0] - (total - part)) + (y[0] - part) + (x[1] + y[1])
    high = total + lost
    return high, lost - (high - total)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgettingGate(ContentBias):
    """The sum of the log gates of all tokens after the key, up to the query: an ALiBi that depends on the text.

        bias[n, t, s] = sum_{s < l <= t} log_gates[l, n] = c[t, n] - c[s, n]            c: the cumulative sums

    For causal attention: a key after its query would be lifted. Positions are not used; tokens count in the order in
    which they stand, and where documents are packed, what lies between two tokens of one document is all its own. In
    decoding, the sums of the keys are kept as the keys are: `bias.of(c[:, -1:], c)`.

    Args:
        heads: N.

    Params: none; the gates are a layer of the model's own.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> x, gates = jnp.ones((1, 3, 4, 8)), jax.nn.log_sigmoid(jnp.ones((1, 3, 4)))
    >>> c = pe.cumulative_gates(gates)
    >>> pe.attend(x, x, x, bias=pe.ForgettingGate(heads=4).bind({}).of(c, c), causal=True).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/2503.02130, equation 3.
    """

    heads: int
    content_axes = ("T, N, 2", "S, N, 2")

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        needs = f"[..., {self.heads}, 2], from `cumulative_gates`"
        for name, x in (("query", query), ("key", key)):
            checks.shape(name, x, (*x.shape[:-2], self.heads, 2), needs)
        query, key = (jnp.swapaxes(x, -3, -2).astype(checks.compute_dtype(x.dtype)) for x in (query, key))
        apart = query[..., :, None, :] - key[..., None, :, :]
        return apart[..., 0] + apart[..., 1]
