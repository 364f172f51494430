"""Positions from the content: convolutions, which know where a token stands by its neighbours and by the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks

EPSILON = 1e-5


def exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def conv_positions(
    x: jax.Array,
    kernel: jax.Array,
    *,
    bias: jax.Array | None = None,
    stride: int = 1,
    normalize: bool = False,
    activation: Callable[[jax.Array], jax.Array] | None = exact_gelu,
) -> jax.Array:
    """A convolution of each token and its neighbours, which is added to the tokens: relative positions.

        y[t] = activation(layer_norm(sum_k x[stride t + k - K // 2] kernel[k] + bias))      tokens past the edges are 0

    wav2vec 2.0, HuBERT, WavLM and SpeechT5 add it once to their frames, with K = 128, 16 groups and the kernel of
    `weight_norm`; an even K leaves out the last frame that it would have. SEW has a stride, data2vec-audio applies
    several, with `normalize=True`, one after the other. Conditional position encodings (PEG, CPE) are
    `x + conv_positions(x, kernel, bias=bias, activation=None)` of two axes with F groups.

    Args:
        x: floating `[B, *sizes, F]`, of one axis or more; padding in it needs to be 0.
        kernel: floating `[*K, F / groups, F]`, of which torch's Conv1d weight is the transpose, `weight.T`.
        bias: floating `[F]`.
        stride: of every axis.
        normalize: layer norm over F, without weights, before the activation.
        activation: GELU; None does nothing.

    Returns:
        float32 `[B, *sizes, F]` (float64 where x is); with a stride, the sizes divided by it, rounded down, nearly.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> x = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> pe.conv_positions(x, jnp.array([[[1.0]], [[0.0]], [[10.0]]]), activation=None)[0, :, 0].tolist()
    [20.0, 31.0, 2.0]

    Source: https://arxiv.org/abs/2006.11477, section 2, and https://arxiv.org/abs/2102.10882 for two axes.
    """
    checks.rank("x", x, range(3, 6), "floating [B, *sizes, F]")
    checks.floating("x", x, "floating [B, *sizes, F]")
    axes, features = x.ndim - 2, x.shape[-1]
    needs = f"floating [*K, F / groups, F] of {axes} axes and F = {features}"
    checks.shape("kernel", kernel, (*[None] * (axes + 1), features), needs)
    checks.floating("kernel", kernel, needs)
    if features % kernel.shape[-2]:
        raise ValueError(
            f"kernel is {checks.describe(kernel)}; it needs to be {needs}: a divisor of F before the last."
        )
    checks.integer_setting("stride", stride)
    checks.flag("normalize", normalize)
    if activation is not None and not callable(activation):
        came = checks.describe(activation)
        raise TypeError(f"activation is {came}; it needs to be a function such as jax.nn.gelu, or None.")
    dtype = checks.compute_dtype(x.dtype)
    sizes = kernel.shape[:-2]
    letters = "DHW"[-axes:]
    y = lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        window_strides=(stride,) * axes,
        padding=[(size // 2, size // 2) for size in sizes],
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=features // kernel.shape[-2],
        precision=lax.Precision.HIGHEST,
    )
    for axis, size in enumerate(sizes, 1):
        if size % 2 == 0:  # torch's padding on both sides makes one too many, and that is the one left out
            y = lax.slice_in_dim(y, 0, -1, axis=axis)
    if bias is not None:
        checks.shape("bias", bias, (features,), f"floating [F], with F = {features}")
        checks.floating("bias", bias, f"floating [F], with F = {features}")
        y = y + bias.astype(dtype).reshape(*[1] * (axes + 1), features)
    if normalize:
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * lax.rsqrt((y * y).mean(axis=-1, keepdims=True) + jnp.asarray(EPSILON, dtype))
    return y if activation is None else activation(y)


def weight_norm(direction: jax.Array, gain: jax.Array) -> Any:
    """The kernel of wav2vec 2.0's convolution: each of its K slices has a norm of its own.

        kernel[k] = gain[k] direction[k] / sqrt(sum direction[k] ** 2)

    Args:
        direction: floating `[K, F / groups, F]`, the transpose of torch's `weight_v` or `original1`.
        gain: floating `[K]`, `weight_g` or `original0`.

    Returns:
        float32 `[K, F / groups, F]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.weight_norm(jnp.full((1, 2, 2), 3.0), jnp.array([8.0]))[0].tolist()
    [[4.0, 4.0], [4.0, 4.0]]

    Source: https://arxiv.org/abs/1602.07868, section 2.
    """
    checks.rank("direction", direction, {3}, "floating [K, F / groups, F]")
    checks.floating("direction", direction, "floating [K, F / groups, F]")
    checks.shape("gain", gain, direction.shape[:1], "floating [K], as direction has it")
    checks.floating("gain", gain, "floating [K], as direction has it")
    v = direction.astype(checks.compute_dtype(direction.dtype))
    return v * (gain.astype(v.dtype)[:, None, None] * lax.rsqrt(jnp.sum(v * v, axis=(1, 2), keepdims=True)))
