"""Positions that are times."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks


def timestamps(times: jax.Array, *, seconds: float, count: int) -> jax.Array:
    """Positions of frames in windows, times how late they are: MusicFlamingo's rotary time embedding.

        window[b] = round(times[b, 0] / (seconds * T)) / count
        within[t] = 2 pi t / count
        out[b, t] = (window[b], within[t]) * -2 pi times[b, t]

    Args:
        times: float32 `[B, T]`, when each frame of a window begins, in seconds.
        seconds: that a frame lasts.
        count: how many windows, and frames, the model counts to.

    Returns:
        float32 `[B, T, 2]`, for a fractional RoPE of two axes.

    >>> import jax.numpy as jnp
    >>> from posembed_jax import mrope
    >>> mrope.timestamps(jnp.array([[0.0, 0.04, 0.08]]), seconds=0.04, count=1200).shape
    (1, 3, 2)

    Source: https://arxiv.org/abs/2511.10289.
    """
    checks.rank("times", times, {2}, "float32 [B, T]")
    checks.floating("times", times, "float32 [B, T]")
    checks.number_setting("seconds", seconds)
    checks.integer_setting("count", count)
    length = times.shape[1]
    window = jnp.round(times[:, :1] / np.float32(seconds * length)) / np.float32(count)
    within = (np.arange(length) / count * math.tau).astype(np.float32)[None]
    both = jnp.stack(jnp.broadcast_arrays(window, jnp.asarray(within)), axis=-1)
    return both * (np.float32(-math.tau) * times)[..., None]
