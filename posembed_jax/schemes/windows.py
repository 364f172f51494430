"""Biases of two and more axes, with a learned value for each offset within a window or image.

Positions are coordinates, as `positions.grid(shape)` numbers them: `[T, 2]` for (row, column). A table is flat,
row-major. Offsets outside of it are an error when positions are concrete, and NaN when they are traced, never a
neighbour's entry: keys that are further away need a mask.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup
from posembed_jax.contracts import Bias, DistanceBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes.mlp import log_spaced, mlp, mlp_inits


def offset_index(
    distance: jax.Array, window: tuple[int, ...], *, symmetric: bool = False, outside: str = "error"
) -> jax.Array:
    """The place of `query position - key position`, or of its absolute value, in a row-major table of all offsets.

    distance: int32 `[..., A]`, key position - query position -> int32 `[...]`, below 0 where the table does not reach.
    """
    size = np.array(window, np.int32).reshape(*[1] * (distance.ndim - 1), -1)
    index, sizes = (jnp.abs(distance), size) if symmetric else (size - 1 - distance, 2 * size - 1)
    inside = (index >= 0) & (index < sizes)
    if outside == "error" and checks.is_concrete(inside) and not np.all(inside):
        every = np.asarray(distance).reshape(-1, len(window))
        raise ValueError(
            f"key_positions - query_positions goes from {every.min(0).tolist()} to {every.max(0).tolist()}, but the "
            f"table is of the offsets within {window}: correct the positions, or make the table larger."
        )
    total = math.prod(sizes.flat)
    strides = total // np.cumprod(sizes, axis=-1, dtype=np.int32)
    # a sum, and not one axis after the other: compilers make it once for all heads
    return jnp.sum(jnp.where(inside, index * strides, -total), axis=-1, dtype=jnp.int32)


def offsets(window: tuple[int, ...]) -> int:
    """How many there are in a window."""
    return math.prod(2 * size - 1 for size in window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinBias(DistanceBias):
    """A learned value for each head and offset within a window.

        bias[n, t, s] = table[n, index(query_positions[t] - key_positions[s])]
        index(y, x) = (y + height - 1) (2 width - 1) + x + width - 1             window=(height, width)

    Args:
        heads: N.
        window: the size of a window along each axis, of which there may be any number (three in Video Swin). Windows
            are rows of the batch; their positions are `positions.grid(window)`, or of the whole image.
        outside: what an offset that is not in the window has: "error", as above, or "zero", where a mask leaves it out.
        stddev: of the normal initializer.

    Params: `{"table": [heads, (2 height - 1) (2 width - 1)]}` (transformers and timm store the transpose).

    The `rpb` `[heads, 2 k - 1, 2 k - 1]` of neighbourhood attention (DiNAT) counts the other way: its table is
    `rpb[:, ::-1, ::-1].reshape(heads, -1)` of `window=(k, k)` with `outside="zero"`, at positions that are divided by
    the dilation, under `masks.neighbourhood`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> bound = pe.SwinBias(heads=1, window=(1, 2)).bind({"table": jnp.array([[-1.0, 0.0, 1.0]])})
    >>> at = pe.positions.grid((1, 2))
    >>> bound(at, at).tolist()
    [[[0.0, -1.0], [1.0, 0.0]]]

    Source: https://arxiv.org/abs/2103.14030, section 3.2.
    """

    heads: int
    window: tuple[int, ...]
    outside: str = "error"
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.sizes("window", self.window)
        checks.one_of("outside", self.outside, ("error", "zero"))
        checks.number_setting("stddev", self.stddev)

    @property
    def position_axes(self) -> int:
        return len(self.window)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (self.heads, offsets(self.window)))}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        index = offset_index(distance, self.window, outside=self.outside)
        bias = lookup.columns(arrays["table"], index)
        return bias if self.outside == "error" else jnp.where((index >= 0)[None], bias, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinV2Bias(DistanceBias):
    """A small network of the logarithm of each offset within a window, for windows that change their size.

        bias[n, t, s] = 16 sigmoid(out_kernel[n] . relu(hidden_kernel x + hidden_bias))
        x[a] = sign(offset[a]) log2(1 + 8 abs(offset[a])) / log2(8)
        offset = (query_positions[t] - key_positions[s]) / (pretrained_window - 1)             0 in a window of size 1

    The network is evaluated once for each of the offsets of the window, not for each pair.

    Args:
        heads: N.
        window: the size of a window along each axis.
        pretrained_window: in which the network was trained; None is `window`. (0 in transformers.)
        hidden: H.

    Params: `{"hidden_kernel": [1, A, H], "hidden_bias": [1, H], "out_kernel": [heads, H]}` for A axes; the transposes
    of transformers' `continuous_position_bias_mlp.0.weight` and its bias, and its `.2.weight`.

    The other half of Swin V2's attention is cosine similarity: normalise q and k, and pass `scale=1.0` with q
    multiplied by the learned scale of each head.

    >>> import jax, posembed_jax as pe
    >>> scheme, at = pe.SwinV2Bias(heads=4, window=(2, 3)), pe.positions.grid((2, 3))
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(at, at).shape
    (4, 6, 6)

    Source: https://arxiv.org/abs/2111.09883, section 3.3, and its code for 8, 16 and the sigmoid.
    """

    heads: int
    window: tuple[int, ...]
    pretrained_window: tuple[int, ...] | None = None
    hidden: int = 512

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.sizes("window", self.window)
        checks.integer_setting("hidden", self.hidden)
        if self.pretrained_window is not None:
            checks.sizes("pretrained_window", self.pretrained_window, minimum=2)
            if len(self.pretrained_window) != len(self.window):
                raise ValueError(
                    f"pretrained_window is {self.pretrained_window}; it needs as many sizes as {self.window}."
                )

    @property
    def position_axes(self) -> int:
        return len(self.window)

    def inits(self) -> dict[str, Initializer]:
        found = mlp_inits(len(self.window), self.hidden, self.heads)
        return {name: found[name] for name in ("hidden_kernel", "hidden_bias", "out_kernel")}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        every = jnp.stack(jnp.meshgrid(*(jnp.arange(1 - size, size) for size in self.window), indexing="ij"), axis=-1)
        largest = np.array([max(size - 1, 1) for size in self.pretrained_window or self.window])
        dtype = checks.compute_dtype(arrays["out_kernel"].dtype)
        x = log_spaced(every.reshape(-1, len(self.window)).astype(dtype) / largest.astype(dtype)[None])
        return lookup.columns(16.0 * jax.nn.sigmoid(mlp(arrays, x)), offset_index(distance, self.window))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeViTBias(DistanceBias):
    """A learned value for each head and offset within an image, the same in all four directions.

        bias[n, t, s] = table[n, width dy + dx]
        dy, dx = abs(key_positions[s] - query_positions[t])                      shape=(height, width)

    Args:
        heads: N.
        shape: of the grid of keys. Attention that shrinks it has queries at `stride * positions.grid(...)`.
        stddev: of the normal initializer.

    Params: `{"table": [heads, height width]}`, the `attention_biases` of LeViT.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> bound = pe.LeViTBias(heads=1, shape=(1, 3)).bind({"table": jnp.array([[0.0, 1.0, 2.0]])})
    >>> bound(2 * pe.positions.grid((1, 2)), pe.positions.grid((1, 3))).tolist()
    [[[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]]

    Source: https://arxiv.org/abs/2104.01136, section 4.2.
    """

    heads: int
    shape: tuple[int, ...]
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.sizes("shape", self.shape)
        checks.number_setting("stddev", self.stddev)

    @property
    def position_axes(self) -> int:
        return len(self.shape)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (self.heads, math.prod(self.shape)))}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        return lookup.columns(arrays["table"], offset_index(distance, self.shape, symmetric=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BEiTBias(Bias):
    """Swin's table over a whole image, and three more entries for a class token.

        bias[n, t, s] = table[n, index(query_positions[t] - key_positions[s])]   as in `SwinBias`, or with a class token
        bias[n, t, s] = table[n, -3]     the query is the class token
        bias[n, t, s] = table[n, -2]     the key is
        bias[n, t, s] = table[n, -1]     both are

    The class token, which stands nowhere in the image, has the position (-1, -1).

    Args:
        heads: N.
        shape: of the image in patches, (height, width).
        stddev: of the normal initializer.

    Params: `{"table": [heads, (2 height - 1) (2 width - 1) + 3]}` (transformers and timm store the transpose).

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.BEiTBias(heads=4, shape=(2, 3))
    >>> at = jnp.concatenate([jnp.full((1, 2), -1), pe.positions.grid((2, 3))])
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(at, at).shape
    (4, 7, 7)

    Source: https://arxiv.org/abs/2106.08254, and its code for the three entries.
    """

    heads: int
    shape: tuple[int, ...]
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.sizes("shape", self.shape)
        checks.number_setting("stddev", self.stddev)

    @property
    def position_axes(self) -> int:
        return len(self.shape)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (self.heads, offsets(self.shape) + 3))}

    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        here, there = (jnp.all(positions == -1, axis=-1) for positions in (query_positions, key_positions))
        distance = jnp.where((here | there)[..., None], 0, key_positions - query_positions)
        index, more = offset_index(distance, self.shape), offsets(self.shape)
        index = jnp.where(here & there, more + 2, jnp.where(here, more, jnp.where(there, more + 1, index)))
        return lookup.columns(arrays["table"], index)
