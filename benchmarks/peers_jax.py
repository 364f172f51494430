"""What `positions.py` measures in the environment `jax`: posembed_jax, usual formulas, and JAX peers.

`TABLES[name](base)` gives `tables(positions int32 [P]) -> cos, sin` of shape `[P, DIM / 2]`.
`TASKS[task][name](setting)` gives a function of no arguments that does the work once and waits for the end.

Everything is jitted, and positions are always arguments, never constants, so that the compiler cannot compute
a table in advance. A candidate imports its library itself, and raises NotImplementedError, with the reason,
where the library has no way to do what is asked.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle

DIM = 128
SHAPE = (1, 4096, 16, DIM)  # batch, tokens, heads, channels
PACKAGES = ("posembed_jax", "jax", "jaxlib", "flax", "equinox", "keras", "keras-hub")


def device() -> str:
    return jax.devices()[0].device_kind


# ---------------------------------------------------------------- tables, for accuracy


def inverse_frequencies(base: float) -> jax.Array:
    return 1.0 / (base ** (jnp.arange(0, DIM, 2, dtype=jnp.float32) / DIM))


def usual_cos_sin(positions, frequencies):
    """The formula most models use: the angle is a float32 product."""
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def usual_tables(base):
    frequencies = inverse_frequencies(base)
    return jax.jit(lambda positions: usual_cos_sin(positions, frequencies))


def our_tables(phase):
    def build(base):
        import posembed_jax as pe

        return jax.jit(pe.RoPE(dim=DIM, layout="half", base=base, phase=phase).cos_sin)

    return build


def our_sinusoids(base):
    import posembed_jax as pe

    encode = pe.Sinusoidal(features=DIM, base=base).bind({})

    def tables(positions):
        sin, cos = jnp.split(jax.jit(lambda positions: encode(positions))(positions), 2, axis=-1)
        return cos, sin

    return tables


def seen_through(rotate):
    """The tables that a rotation of halves applies, which turns (1, 0) into (cos, sin).

    rotate: called with x `[P, D]` and positions `[P]`.
    """

    def tables(positions):
        x = jnp.tile(jnp.repeat(jnp.array([1.0, 0.0]), DIM // 2), (len(positions), 1))
        return jnp.split(jax.jit(rotate)(x, positions), 2, axis=-1)

    return tables


def flax_tables(base):
    from flax import nnx

    return seen_through(nnx.RoPE(theta=base))


def keras_hub_tables(base):
    import keras_hub

    layer = keras_hub.layers.RotaryEmbedding(max_wavelength=base)
    return seen_through(lambda x, positions: layer(x[None], positions=positions)[0])


def equinox_tables(base):
    """From the function that fills equinox's cache, for the cache itself is keyed without theta.

    Called directly, it can neither read another theta's table nor leave its own behind.
    """
    import equinox as eqx

    def tables(positions):
        end = int(positions[-1]) + 1
        if end > 2**20:
            raise NotImplementedError("takes no positions, its tables begin at 0; here up to 2^20 rows")
        cos, sin = eqx.nn.RotaryPositionalEmbedding.precompute_freqs_cis(DIM, end, base, jnp.float32)
        return cos[positions], sin[positions]

    return tables


def keras_hub_sinusoids(dtype):
    def build(base):
        import keras_hub

        layer = keras_hub.layers.SinePositionEncoding(max_wavelength=base, dtype=dtype)
        encode = jax.jit(lambda x, start: layer(x, start_index=start))

        def tables(positions):
            y = encode(jnp.zeros((1, len(positions), DIM)), positions[0])[0]
            return y[:, 1::2], y[:, 0::2]

        return tables

    return build


TABLES = {
    "posembed_jax": our_tables("exact"),
    'posembed_jax, phase="float32"': our_tables("float32"),
    "posembed_jax Sinusoidal": our_sinusoids,
    "jnp.cos(position * frequency)": usual_tables,
    "flax nnx.RoPE": flax_tables,
    "equinox": equinox_tables,
    "keras-hub RotaryEmbedding": keras_hub_tables,
    "keras-hub SinePositionEncoding": keras_hub_sinusoids("float32"),
    "keras-hub SinePositionEncoding, mixed_bfloat16": keras_hub_sinusoids("mixed_bfloat16"),
}


# ---------------------------------------------------------------- speed


def waiting(function, *arguments):
    """The jitted function as something to time: called with these arguments, waited for."""
    function = jax.jit(function)
    return lambda: jax.block_until_ready(function(*arguments))


def heads(dtype, tokens=SHAPE[1]):
    """Random queries and keys `[1, tokens, 16, DIM]`."""
    shape = (SHAPE[0], tokens, *SHAPE[2:])
    return tuple(jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(0)))


def positions_of(tokens=SHAPE[1]):
    return jnp.arange(tokens, dtype=jnp.int32)


def our_table_time(tokens):
    import posembed_jax as pe

    return waiting(pe.RoPE(dim=DIM, layout="half").cos_sin, positions_of(tokens))


def usual_table_time(tokens):
    return waiting(usual_tables(10_000.0), positions_of(tokens))


def copy_time(dtype):
    """The limit: read q and k once, write as much."""
    return waiting(lambda q, k: (q + 1, k + 1), *heads(dtype))


def our_rotation_time(dtype):
    """Given the tables, as in every layer after the first."""
    import posembed_jax as pe

    cos, sin = jax.jit(pe.RoPE(dim=DIM, layout="half").cos_sin)(positions_of())

    def rotation(q, k, cos, sin):
        return pe.rotate(q, cos, sin, layout="half"), pe.rotate(k, cos, sin, layout="half")

    return waiting(rotation, *heads(dtype), cos, sin)


def our_whole_time(dtype):
    """Binding, tables and rotation, all inside the jit, from positions."""
    import posembed_jax as pe

    rope = pe.RoPE(dim=DIM, layout="half")

    def whole(q, k, positions):
        rotate = rope.bind({})
        return rotate(q, positions), rotate(k, positions)

    return waiting(whole, *heads(dtype), positions_of())


def split_and_concatenate(x, cos, sin):
    """x `[B, T, N, D]`, cos and sin `[T, 1, D / 2]`."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def rotate_half(x, cos, sin):
    """x `[B, T, N, D]`, cos and sin `[T, 1, D / 2]`, doubled to D here as the tables of such models are."""
    cos, sin = jnp.tile(cos, 2), jnp.tile(sin, 2)
    a, b = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-b, a], axis=-1) * sin).astype(x.dtype)


def usual_rotation_time(rotation):
    """Given float32 tables; products in float32, the result in the type of x."""

    def build(dtype):
        cos, sin = (table[:, None] for table in usual_tables(10_000.0)(positions_of()))

        def both(q, k, cos, sin):
            return rotation(q, cos, sin), rotation(k, cos, sin)

        return waiting(both, *heads(dtype), cos, sin)

    return build


def usual_whole_time(dtype):
    """Frequencies, tables and split-and-concatenate, all inside the jit, from positions."""

    def whole(q, k, positions):
        cos, sin = (table[:, None] for table in usual_cos_sin(positions, inverse_frequencies(10_000.0)))
        return split_and_concatenate(q, cos, sin), split_and_concatenate(k, cos, sin)

    return waiting(whole, *heads(dtype), positions_of())


def keras_hub_time(dtype):
    """The layer makes its tables in every call."""
    import keras_hub

    layer = keras_hub.layers.RotaryEmbedding(dtype="float32" if dtype == "float32" else "mixed_bfloat16")
    return waiting(lambda q, k: (layer(q), layer(k)), *heads(dtype))


def equinox_time(dtype):
    """The cache of tables is emptied first: its key has no theta in it."""
    import equinox as eqx
    from equinox.nn import _embedding

    _embedding.internal_rope_embedding_cache.clear()
    rope = eqx.nn.RotaryPositionalEmbedding(DIM)
    each_head = jax.vmap(jax.vmap(rope, in_axes=1, out_axes=1))
    return waiting(lambda q, k: (each_head(q), each_head(k)), *heads(dtype))


def flax_time(dtype):
    """With the tables it keeps. A bfloat16 input comes back as float32, which is more to write."""
    from flax import nnx

    rope = nnx.RoPE(embedding_size=DIM, max_seq_len=SHAPE[1])
    each_head = jax.vmap(rope, in_axes=-2, out_axes=-2)
    return waiting(lambda q, k: (each_head(q), each_head(k)), *heads(dtype))


def flax_whole_time(dtype):
    """From positions, inside the jit."""
    from flax import nnx

    each_head = jax.vmap(nnx.RoPE(), in_axes=(-2, None), out_axes=-2)

    def both(q, k, positions):
        return each_head(q, positions), each_head(k, positions)

    return waiting(both, *heads(dtype), positions_of())


class Decoding:
    """Steps of one token each, far into a sequence; `traces` counts how often the step was traced."""

    def __init__(self, rotation, steps):
        self.traces = 0
        self.q, self.k = heads("float32", tokens=1)
        self.positions = [jnp.array([100_000 + step], jnp.int32) for step in range(steps)]

        def step(q, k, positions):
            self.traces += 1
            return rotation(q, positions), rotation(k, positions)

        self.step = jax.jit(step)

    def __call__(self):
        for positions in self.positions:
            jax.block_until_ready(self.step(self.q, self.k, positions))


def our_decoding(steps):
    import posembed_jax as pe

    return Decoding(pe.RoPE(dim=DIM, layout="half").bind({}), steps)


def usual_decoding(steps):
    frequencies = inverse_frequencies(10_000.0)

    def rotation(x, positions):
        cos, sin = (table[:, None] for table in usual_cos_sin(positions, frequencies))
        return split_and_concatenate(x, cos, sin)

    return Decoding(rotation, steps)


TASKS = {
    "tables": {"posembed_jax": our_table_time, "jnp.cos(position * frequency)": usual_table_time},
    "rotation": {
        "copy (q + 1, k + 1)": copy_time,
        "posembed_jax, tables given": our_rotation_time,
        "posembed_jax, from positions": our_whole_time,
        "split and concatenate, tables given": usual_rotation_time(split_and_concatenate),
        "x * cos + rotate_half(x) * sin, tables given": usual_rotation_time(rotate_half),
        "split and concatenate, from positions": usual_whole_time,
        "flax nnx.RoPE, tables kept": flax_time,
        "flax nnx.RoPE, from positions": flax_whole_time,
        "equinox, tables kept": equinox_time,
        "keras-hub, from positions": keras_hub_time,
    },
    "decoding": {"posembed_jax": our_decoding, "split and concatenate": usual_decoding},
}


# ---------------------------------------------------------------- ours at random positions


def bulk(base: float, count: int, seed: int = 0) -> dict[str, float]:
    """Our largest error at `count` random int32 positions, both ends included, times DIM / 2 frequencies."""
    ends = [-(2**31), 2**31 - 1, 0, -1, 1]
    random = np.random.default_rng(seed).integers(-(2**31), 2**31, count - len(ends))
    positions = np.concatenate([ends, random]).astype(np.int32)
    tables, frequencies, error = our_tables("exact")(base), oracle.frequencies(DIM, base), 0.0
    for chunk in np.array_split(positions, max(1, count // 10_000)):
        for ours, true in zip(tables(jnp.asarray(chunk)), oracle.cos_sin(chunk, frequencies), strict=True):
            error = max(error, float(np.abs(np.asarray(ours, np.float64) - true).max()))
    return {"pairs": len(positions) * len(frequencies), "error": error}
