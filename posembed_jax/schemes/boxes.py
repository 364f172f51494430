"""Biases of boxes in an image: of a query's box and a pixel, and of the boxes of a query and a key.

Boxes are data, `[B, T, 4]`: (centre x, centre y, width, height). They go in by `scheme.bind(params).of(boxes)`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes.mlp import log_spaced, mlp, mlp_inits, uniform


def check_boxes(name: str, boxes: jax.Array) -> None:
    checks.shape(name, boxes, (*boxes.shape[:-1], 4), "boxes [..., 4] of centre x, centre y, width, height")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxRPB(ContentBias):
    """Box-to-pixel relative position bias: small networks of how far a pixel is from the edges of a query's box.

        bias[n, t, s] = mlp_x(x / width - left[t], x / width - right[t])[n]
                      + mlp_y(y / height - top[t], y / height - bottom[t])[n]       (y, x) = key_positions[s]
        mlp(d) = out_kernel relu(hidden_kernel g(d) + hidden_bias) + out_bias
        g(d) = sign(d) log2(1 + 8 abs(d)) / log2(8)

    The networks are evaluated for each query and row, and each query and column. A query without a box, such as the
    presence token of SAM 3 (`sam3`, `sam3_lite_text` in transformers), has one of negative width: its bias is 0.

    Args:
        heads: N.
        shape: (height, width) of the pixels; key_positions are `positions.grid(shape)`. query_positions, which are not
            used, may be zeros.
        hidden: H.

    Params: `hidden_kernel` `[1, 2, H]`, `hidden_bias` `[1, H]`, `out_kernel` `[heads, H]`, `out_bias` `[heads]`, each
    with `_x` and `_y`: of SAM 3's `box_rpb_embed_x.layer1` (the transpose) and `.layer2`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.BoxRPB(heads=4, shape=(2, 3), hidden=8)
    >>> bias = scheme.bind(pe.init(scheme, jax.random.key(0))).of(jnp.array([[[0.5, 0.5, 0.2, 0.4]]]))
    >>> q, k = jnp.ones((1, 1, 4, 8)), jnp.ones((1, 6, 4, 8))
    >>> at = {"query_positions": jnp.zeros((1, 2), jnp.int32), "key_positions": pe.positions.grid((2, 3))}
    >>> pe.attend(q, k, k, bias=bias, **at).shape
    (1, 1, 4, 8)

    Source: https://arxiv.org/abs/2308.01904, on box-to-pixel relative position bias.
    """

    heads: int
    shape: tuple[int, ...]
    hidden: int = 256
    content_axes = ("T, 4", "S, K, D")

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.sizes("shape", self.shape)
        if len(self.shape) != 2:
            raise ValueError(f"shape is {self.shape}; it needs to be (height, width).")
        checks.integer_setting("hidden", self.hidden)

    @property
    def position_axes(self) -> int:
        return 2

    def inits(self) -> dict[str, Initializer]:
        found = mlp_inits(2, self.hidden, self.heads)
        return {f"{name}_{axis}": initializer for axis in "xy" for name, initializer in found.items()}

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        check_boxes("query", query)
        boxes = query.astype(checks.compute_dtype(query.dtype))
        total = jnp.zeros((), boxes.dtype)
        for axis, (name, size) in enumerate(zip("xy", self.shape[::-1], strict=True)):
            own = {array: arrays[f"{array}_{name}"] for array in mlp_inits(2, self.hidden, self.heads)}
            centre, half = boxes[..., axis, None], boxes[..., axis + 2, None] / 2
            edges = jnp.stack([centre - half, centre + half], axis=-1)
            pixels = (jnp.arange(size) / size).astype(boxes.dtype).reshape(*[1] * (boxes.ndim - 1), size, 1)
            total = total + _at(mlp(own, log_spaced(pixels - edges)), key_positions[..., 1 - axis])
        return jnp.where((boxes[..., 2] >= 0)[..., None, :, None], total, 0.0)


def _at(values: jax.Array, places: jax.Array) -> jax.Array:
    """`values[..., places]`: `[heads, ..., T, size]` and int32 `[..., S]` -> `[..., heads, T, S]`, NaN outside.

    As a product with ones and zeros, whose gradient is another and not a scatter.
    """
    size = values.shape[-1]
    outside = (places < 0) | (places >= size)
    if checks.is_concrete(outside) and np.any(outside):
        raise ValueError(
            f"key_positions go from {np.min(places)} to {np.max(places)} along an axis of shape of {size} pixels; they "
            "need to be positions.grid(shape)."
        )
    chosen = jax.nn.one_hot(places, size, dtype=values.dtype)
    found = jnp.einsum("n...tk,...sk->...nts", values, chosen, precision=lax.Precision.HIGHEST)
    return jnp.where(outside[..., None, None, :], jnp.nan, found)


EPSILON = 1e-5  # added to every width and height


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxRelationBias(ContentBias):
    """A linear function of sinusoids of how the boxes of a query and a key lie to each other.

        bias[n, t, s] = kernel[n] . [sin(r scale frequencies) | cos(r scale frequencies) for r in relation] + bias[n]
        relation = [log(1 + abs(x_t - x_s) / width_t), log(1 + abs(y_t - y_s) / height_t),
                    log(width_t / width_s), log(height_t / height_s)]
        frequencies[i] = base ** (-i / denominator)                              i = 0 ... features / 2 - 1

    It is `pp_doclayout_v2` in transformers with `denominator=features / 4`, and Relation-DETR with `relu=True`, where
    each sine stands beside its cosine in the kernel. Neither passes gradients to the boxes: `lax.stop_gradient(boxes)`.

    Args:
        heads: N.
        features: F of the sinusoids of each of the four numbers, even.
        base, scale: as above.
        denominator: as above; F / 2 when None.
        relu: whether what is below 0 becomes 0.

    Params: `{"kernel": [heads, 4 F], "bias": [heads]}`, of the convolution `pos_proj`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, boxes = pe.BoxRelationBias(heads=4), jnp.array([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.8, 0.1, 0.2]]])
    >>> q = jnp.ones((1, 2, 4, 8))
    >>> pe.attend(q, q, q, bias=scheme.bind(pe.init(scheme, jax.random.key(0))).of(boxes, boxes)).shape
    (1, 2, 4, 8)

    Source: https://arxiv.org/abs/2407.11699, on the position relation encoder.
    """

    heads: int
    features: int = 16
    base: float = 10_000.0
    scale: float = 100.0
    denominator: float | None = None
    relu: bool = False
    content_axes = ("T, 4", "S, 4")

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("features", self.features)
        checks.number_setting("base", self.base, above=1.0)
        checks.number_setting("scale", self.scale)
        if self.denominator is not None:
            checks.number_setting("denominator", self.denominator)
        checks.flag("relu", self.relu)
        if self.features % 2:
            raise ValueError(f"features is {self.features}; it needs to be even: a sine and a cosine a frequency.")

    def inits(self) -> dict[str, Initializer]:
        fan_in = 4 * self.features
        return {"kernel": uniform(fan_in, self.heads, fan_in), "bias": uniform(fan_in, self.heads)}

    def constants(self) -> dict[str, np.ndarray]:
        steps = np.arange(self.features // 2) / (self.denominator or self.features / 2)
        return {"frequencies": (self.scale * self.base**-steps).astype(np.float32)[None]}

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        check_boxes("query", query)
        check_boxes("key", key)
        dtype = checks.compute_dtype(query.dtype)
        here, there = query.astype(dtype)[..., :, None, :], key.astype(dtype)[..., None, :, :]
        size, other = here[..., 2:] + EPSILON, there[..., 2:] + EPSILON
        apart = jnp.log1p(jnp.abs(here[..., :2] - there[..., :2]) / size)
        relation = jnp.concatenate([apart, jnp.log(size) - jnp.log(other)], axis=-1)
        angle = relation[..., None] * arrays["frequencies"].astype(dtype).reshape(*[1] * relation.ndim, -1)
        kernel = arrays["kernel"].astype(dtype).reshape(self.heads, 4, 2, -1)
        sinusoids = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-2)
        out = jnp.einsum("...tsrcf,nrcf->...nts", sinusoids, kernel, precision=lax.Precision.HIGHEST)
        out = out + arrays["bias"].astype(dtype).reshape(*[1] * (out.ndim - 3), -1, 1, 1)
        return jax.nn.relu(out) if self.relu else out
