"""A bias of two positions times a gate of each query (WavLM)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Bias, ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal

OUTPUTS = 8  # of the gate's layer: the sums of four each go through a sigmoid


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedBias(ContentBias):
    """A bias times what a small gate makes of the hidden state of each query.

        out[n, t, s] = (a (b gate_constant[n] - 1) + 2) bias[n, t, s]
        a, b = sigmoid(the sums of the first and the last four of  hidden[t, n] @ gate_kernel + gate_bias)

    `hidden[t, n]` is the part of head n of the hidden state that the layer gets, F / heads features. It goes in by
    `scheme.bind(params).of(hidden)`; given an attention layer's input, not its query.

    Args:
        bias: a bias such as `T5Bias`, evaluated for each pair here. In WavLM its table is that of the first layer.
        features: F of the hidden states, a multiple of the heads.

    Params: those of the bias, and `{"gate_kernel": [1, F / heads, 8], "gate_bias": [1, 8], "gate_constant": [heads]}`:
    of `gru_rel_pos_linear` and `gru_rel_pos_const` of `wavlm`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.GatedBias(bias=pe.T5Bias(heads=4, buckets=320, max_distance=800, bidirectional=True), features=32)
    >>> bias, x = scheme.bind(pe.init(scheme, jax.random.key(0))), jnp.ones((1, 3, 4, 8))
    >>> pe.attend(x, x, x, bias=bias.of(jnp.ones((1, 3, 32)))).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/2110.13900, section III-B.
    """

    bias: Bias
    features: int
    content_axes = ("T, F", "S, K, D")

    def __post_init__(self):
        checks.contract("bias", self.bias, Bias, "a Bias such as T5Bias(...)")
        checks.integer_setting("features", self.features)
        if self.features % self.heads:
            raise ValueError(
                f"features is {self.features}; it needs to be a multiple of the {self.heads} heads of bias."
            )

    @property
    def heads(self) -> int:  # type: ignore[override]
        return self.bias.heads

    @property
    def position_axes(self) -> int | None:
        return self.bias.position_axes

    def inits(self) -> dict[str, Initializer]:
        width = self.features // self.heads
        return {
            **self.bias.inits(),
            "gate_kernel": normal(width**-0.5, (1, width, OUTPUTS)),
            "gate_bias": Initializer((1, OUTPUTS), jax.nn.initializers.zeros),
            "gate_constant": Initializer((self.heads,), jax.nn.initializers.ones),
        }

    def constants(self) -> dict[str, np.ndarray]:
        return self.bias.constants()

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        checks.shape("query", query, (*query.shape[:-1], self.features), f"hidden states [..., {self.features}]")
        own = {name: arrays[name] for name in (*self.bias.inits(), *self.bias.constants())}
        here, there = (-1, -2) if self.position_axes is None else (-2, -3)
        query_positions, key_positions = jnp.expand_dims(query_positions, here), jnp.expand_dims(key_positions, there)
        bias = jnp.moveaxis(self.bias.pairs(own, query_positions, key_positions), 0, -3)
        gate = self._gate(arrays, query)
        dtype = jnp.promote_types(bias.dtype, gate.dtype)
        return gate.astype(dtype)[..., None] * _of_rank(bias.astype(dtype), gate.ndim + 1)

    def _gate(self, arrays: Arrays, hidden: jax.Array) -> jax.Array:
        """`[..., T, F]` -> float32 `[..., N, T]`."""
        dtype = checks.compute_dtype(hidden.dtype)
        kernel, bias, constant = (arrays[f"gate_{name}"].astype(dtype) for name in ("kernel", "bias", "constant"))
        heads = hidden.astype(dtype).reshape(*hidden.shape[:-1], self.heads, -1)
        layer = jnp.einsum("...tnd,dk->...ntk", heads, kernel[0], precision=lax.Precision.HIGHEST)
        layer = layer + bias.reshape(*[1] * (layer.ndim - 1), -1)
        a, b = jnp.moveaxis(jax.nn.sigmoid(layer.reshape(*layer.shape[:-1], 2, -1).sum(-1)), -1, 0)
        return a * (b * constant.reshape(*[1] * (a.ndim - 2), -1, 1) - 1.0) + 2.0


def _of_rank(x: jax.Array, rank: int) -> jax.Array:
    """With axes of length 1 in front."""
    return x.reshape(*[1] * (rank - x.ndim), *x.shape)
