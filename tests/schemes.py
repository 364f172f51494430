"""The one table of schemes, and the small inputs on which every property file tries them.

A new scheme needs one row in TABLE: every property is then tested for it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

B, T, N, K, D, F = 3, 16, 4, 2, 8, 12
LAST = 23  # position of the tables below
CONTENT = pe.ContentBias.content_axes
S = T - 3
VOCABULARY = 11


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Settings, the contract they follow, and what independent knowledge says about them."""

    name: str
    scheme: pe.Scheme
    contract: type
    learned: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    rounds: bool = False  # the angle is rounded to float32, so large positions are not exact by design
    shifts: tuple[int, ...] = (1, 1_000, 2**20 + 1, 2**30)  # of query and key together, which change nothing
    keeps_norm: bool = True  # of what a rotation rotates, up to its amplitude
    smooth: bool = True  # False where finite differences meet corners
    step: float = 2.0**-7  # of finite differences
    exact: bool = True  # a bias, or a table, in which nothing is rounded on the way

    @property
    def place(self) -> str:
        """Where the scheme acts in a layer, which is also the name of its arrays there."""
        places = {pe.Additive: "additive", pe.Rotation: "rotation", pe.ValueBias: "value_bias"}
        return places.get(self.contract, "bias")

    @property
    def axes(self) -> int | None:
        """How many numbers a position is."""
        return self.scheme.position_axes

    @property
    def in_layers(self) -> bool:
        """Whether attention layers can hold it: content of one's own is bound at every call."""
        return getattr(self.scheme, "content_axes", CONTENT) == CONTENT

    @property
    def cached(self) -> bool:
        """Whether it works with a KV cache, which holds no positions of several axes."""
        return self.in_layers and (self.axes is None or self.place in ("additive", "rotation"))

    @property
    def heads(self) -> int:
        return getattr(self.scheme, "heads", N)

    @property
    def features(self) -> int:
        return getattr(self.scheme, "features", F)

    @property
    def in_attention(self) -> dict[str, pe.Scheme]:
        """The keyword of `Attention` that takes the scheme."""
        return {} if self.place == "additive" else {self.place: self.scheme}


def _rows(contract: type, **rows: Any) -> list[Row]:
    """Each of `rows` is a scheme, or a tuple of a scheme and more fields of its Row."""
    found = []
    for name, value in rows.items():
        scheme, fields = value if isinstance(value, tuple) else (value, {})
        found.append(Row(name=name, scheme=scheme, contract=contract, **fields))
    return found


def _learns(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {"learned": shapes}


ROUNDS = {"rounds": True}
INEXACT = {"exact": False}
CORNERS = {"exact": False, "smooth": False}
FOPE = {"keeps_norm": False, "shifts": ()}  # not relative
XPOS = {"keeps_norm": False, "shifts": (1, 1_000, 2**14)}

SCALINGS = {
    "rope_linear": pe.Linear(factor=2.5),
    "rope_ntk": pe.NTK(factor=4.0),
    "rope_yarn": pe.YaRN(factor=4.0, original_length=512),
    "rope_llama3": pe.Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=64),
    "rope_proportional": pe.Proportional(fraction=0.5),
}
LENGTH_SCALINGS = {
    "rope_dynamic_ntk": pe.DynamicNTK(factor=2.0, original_length=16),
    "rope_longrope": pe.LongRoPE(
        short_factor=(1.0, 1.1, 1.2, 1.3),
        long_factor=(1.5, 2.5, 3.5, 4.5),
        original_length=16,
        attention_factor=pe.longrope_factor(4.0, 16),
    ),
}

TABLE = [
    *_rows(
        pe.Additive,
        learned=(pe.LearnedPositions(length=24, features=F), _learns(table=(24, F))),
        learned_offset=(pe.LearnedPositions(length=24, features=F, index_offset=2), _learns(table=(26, F))),
        sinusoidal=pe.Sinusoidal(features=F),
        sinusoidal_cos_sin=pe.Sinusoidal(features=F, layout="cos_sin", denominator="half_minus_1"),
        sinusoidal_interleaved_odd=pe.Sinusoidal(features=F + 1, layout="interleaved"),
        sinusoidal_odd_zero=pe.Sinusoidal(features=F + 1, denominator="half_minus_1", odd="zero", base=500.0),
        sinusoidal_axes=pe.Sinusoidal(features=F, axes=3, order=(2, 0, 1), layout="interleaved"),
        sinusoidal_amplitude=(pe.Sinusoidal(features=F, learned_amplitude=True), _learns(amplitude=(1,))),
        axial=(
            pe.AxialPositions(shape=(24, 24), features=F, join="concatenate", channels=(8, 4), order=(1, 0)),
            _learns(table_0=(24, 8), table_1=(24, 4)),
        ),
        axial_added=(
            pe.AxialPositions(shape=(24, 25), features=F, join="add", tables=(0, 1, 0)),
            _learns(table_0=(24, F), table_1=(25, F)),
        ),
        tiles=(
            pe.TilePositions(arrangements=24, tiles=24, patches=24, features=F),
            INEXACT | _learns(gate=(1,), table=(24, F), tiles=(24, 24, 24, F)),
        ),
        fourier=(pe.FourierFeatures(features=F, stddev=0.5), {"step": 2.0**-11} | _learns(frequencies=(2, F // 2))),
        sinusoidal_float32=(pe.Sinusoidal(features=F, phase="float32"), ROUNDS),
    ),
    *_rows(
        pe.Rotation,
        rope_half=pe.RoPE(dim=D, layout="half"),
        rope_interleaved=pe.RoPE(dim=D, layout="interleaved", base=500_000.0),
        rope_partial_first=pe.RoPE(dim=6, layout="half"),
        rope_partial_last=pe.RoPE(dim=4, layout="interleaved", rotated="last"),
        rope_learned=(pe.RoPE(dim=D, layout="half", learned=True), _learns(frequencies=(D // 2,))),
        rope_float32=(pe.RoPE(dim=D, layout="interleaved", phase="float32"), ROUNDS),
        **{name: pe.RoPE(dim=D, layout="half", scaling=scaling) for name, scaling in SCALINGS.items()},
        rope_resonance=pe.RoPE(dim=D, layout="half", scaling=pe.Resonance(scaling=pe.Linear(factor=2.5))),
        **{
            name: pe.RoPE(dim=D, layout="half", scaling=scaling, length=30) for name, scaling in LENGTH_SCALINGS.items()
        },
        rope_grid=pe.RoPE(dim=D, layout="half", axes=pe.Axes.blocks(axes=2, count=D // 4), blocks=2),
        rope_sections=pe.RoPE(dim=D, layout="interleaved", axes=pe.Axes.sections((2, 1, 1)), clockwise=True),
        xpos=(pe.XPos(rope=pe.RoPE(dim=D, layout="interleaved"), centre=0), XPOS),
        xpos_partial=(
            pe.XPos(rope=pe.RoPE(dim=6, layout="half", rotated="last"), centre=500, scale_base=600.0, gamma=1.0),
            XPOS,
        ),
        fope=(
            pe.FoPE(dim=D, layout="half", length=800, key_value_heads=K),
            FOPE | _learns(cos=(K, 3, 3), sin=(K, 3, 3)),
        ),
        fope_shared=(
            pe.FoPE(dim=D, layout="interleaved", length=100, base=100.0, pairs=1, pad_sin_with_one=True),
            FOPE | _learns(cos=(1, 3, 1), sin=(1, 3, 1)),
        ),
        rope_mixed=(
            pe.RoPEMixed(dim=D, layout="interleaved", axes=1, key_value_heads=K),
            _learns(frequencies=(K, 1, D // 2)),
        ),
        rope_mixed_axes=(pe.RoPEMixed(dim=D, layout="half"), _learns(frequencies=(1, 2, D // 2))),
        rope_mixed_shared=(pe.RoPEMixed(dim=6, layout="half", axes=1), _learns(frequencies=(1, 1, 3))),
    ),
    *_rows(
        pe.DistanceBias,
        t5_bidirectional=(pe.T5Bias(heads=N, bidirectional=True), _learns(table=(N, 32))),
        t5_causal=(pe.T5Bias(heads=N, bidirectional=False), _learns(table=(N, 32))),
        t5_small=(pe.T5Bias(heads=6, buckets=7, max_distance=9, bidirectional=False), _learns(table=(6, 7))),
        alibi=pe.ALiBi(heads=N),
        alibi_linear=pe.ALiBi(heads=N, symmetric=False),
        alibi_6_heads=pe.ALiBi(heads=6, bias_max=5.0),
        alibi_slopes=pe.ALiBi(heads=N, slopes=(0.5, 0.25, 2.0, 0.125)),
        clipped=(pe.ClippedBias(heads=N, left=9, right=5), _learns(table=(N, 15))),
        swin=(pe.SwinBias(heads=N, window=(24, 23)), _learns(table=(N, 47 * 45))),
        swin_of_neighbours=(pe.SwinBias(heads=N, window=(3, 3), outside="zero"), _learns(table=(N, 25))),
        swin_v2=(
            pe.SwinV2Bias(heads=6, window=(23, 24), pretrained_window=(9, 7), hidden=7),
            CORNERS | _learns(hidden_kernel=(1, 2, 7), hidden_bias=(1, 7), out_kernel=(6, 7)),
        ),
        levit=(pe.LeViTBias(heads=6, shape=(23, 24)), _learns(table=(6, 23 * 24))),
        axis_bias=(
            pe.AxisBias(biases=(pe.ClippedBias(heads=N, left=9, right=5), pe.ALiBi(heads=N), pe.KERPLE(heads=N))),
            INEXACT | _learns(table_0=(N, 15), log_r1_2=(N,), log_r2_2=(N,)),
        ),
        sandwich=(pe.Sandwich(heads=6, features=10), INEXACT),
        kerple_power=(pe.KERPLE(heads=6, kind="power"), INEXACT | _learns(log_r1=(6,), logit_r2=(6,))),
        dynamic=(
            pe.DynamicPositionBias(heads=6, hidden=4),
            INEXACT
            | {"step": 2.0**-12}
            | _learns(
                kernel_0=(1, 2, 4),
                **{f"kernel_{i}": (1, 4, 4) for i in (1, 2)},
                **{f"{name}_{i}": (1, 4) for name in ("bias", "scale", "shift") for i in (0, 1, 2)},
                out_kernel=(6, 4),
                out_bias=(6,),
            ),
        ),
    ),
    *_rows(
        pe.Bias,
        beit=(pe.BEiTBias(heads=N, shape=(23, 23)), {"shifts": ()} | _learns(table=(N, 45 * 45 + 3))),
        fire=(
            pe.FIRE(heads=6, hidden=5),
            {"shifts": ()}
            | CORNERS
            | _learns(
                log_c=(1,),
                log_length=(1,),
                hidden_kernel=(1, 1, 5),
                hidden_bias=(1, 5),
                out_kernel=(6, 5),
                out_bias=(6,),
            ),
        ),
    ),
    *_rows(
        pe.ContentBias,
        box_rpb=(
            pe.BoxRPB(heads=6, shape=(24, 24), hidden=5),
            {"shifts": ()}
            | CORNERS
            | _learns(
                **{f"hidden_kernel_{axis}": (1, 2, 5) for axis in "xy"},
                **{f"hidden_bias_{axis}": (1, 5) for axis in "xy"},
                **{f"out_kernel_{axis}": (6, 5) for axis in "xy"},
                **{f"out_bias_{axis}": (6,) for axis in "xy"},
            ),
        ),
        box_relation=(
            pe.BoxRelationBias(heads=N, features=6, scale=3.0),
            CORNERS | _learns(kernel=(N, 24), bias=(N,)),
        ),
        shaw=(pe.ShawBias(heads=N, dim=D, left=3, right=2), INEXACT | _learns(table=(1, 6, D))),
        shaw_zero=(
            pe.ShawBias(heads=6, dim=D, left=2, right=4, outside="zero", shared=False, scale=1.5),
            INEXACT | _learns(table=(6, 7, D)),
        ),
        transformer_xl=(
            pe.TransformerXLBias(heads=N, dim=D, sinusoid=pe.Sinusoidal(features=F)),
            INEXACT | _learns(kernel=(N, F, D), u=(N, D), v=(N, D)),
        ),
        transformer_xl_clipped=(
            pe.TransformerXLBias(
                heads=6,
                dim=D,
                sinusoid=pe.Sinusoidal(features=6, layout="interleaved"),
                biases=False,
                max_distance=5,
                scale=1.5,
            ),
            INEXACT | _learns(kernel=(6, 6, D)),
        ),
        deberta=(
            pe.DeBERTaBias(heads=N, dim=D, max_distance=9, buckets=6),
            INEXACT | _learns(pos_key=(N, 12, D), pos_query=(N, 12, D)),
        ),
        deberta_c2p=(
            pe.DeBERTaBias(heads=6, dim=D, max_distance=7, kinds=("c2p",)),
            INEXACT | _learns(pos_key=(6, 14, D)),
        ),
        decomposed=(
            pe.DecomposedBias(heads=N, dim=D, shape=(24, 23)),
            INEXACT | _learns(table_0=(1, 47, D), table_1=(1, 45, D)),
        ),
        relative_logits=(
            pe.RelativeLogits(heads=6, features=D, extent=5),
            INEXACT | _learns(profiles=(1, 5, D)),
        ),
        gated=(
            pe.GatedBias(bias=pe.T5Bias(heads=N, buckets=8, max_distance=12, bidirectional=True), features=N * D),
            INEXACT | _learns(table=(N, 8), gate_kernel=(1, D, 8), gate_bias=(1, 8), gate_constant=(N,)),
        ),
        forgetting=(pe.ForgettingGate(heads=6), INEXACT),
        cope=(pe.CoPE(heads=N, dim=D, length=6), CORNERS | _learns(table=(1, 6, D))),
    ),
    *_rows(
        pe.ValueBias,
        shaw_values=(pe.ShawValues(heads=N, dim=D, left=3, right=2), _learns(table=(1, 6, D))),
        shaw_values_zero=(
            pe.ShawValues(heads=6, dim=D, left=2, right=2, outside="zero", shared=False),
            _learns(table=(6, 5, D)),
        ),
    ),
]


def every(where: Any = lambda row: True, *, heavy: bool = False) -> pytest.MarkDecorator:
    """Runs a test for each row of TABLE, as its argument `row`; where it is heavy, all but one of a kind are slow.

    A kind is a contract, with or without content of its own.
    """
    rows = [row for row in TABLE if where(row)]
    return pytest.mark.parametrize("row", [_param(row, rows, heavy=heavy) for row in rows])


def _kind(row: Row) -> Any:
    return row.contract, row.in_layers


def _param(row: Row, rows: list[Row], *more: Any, heavy: bool) -> Any:
    first = next(other for other in rows if _kind(other) == _kind(row))
    marks = [pytest.mark.slow] if heavy and row is not first else []
    return pytest.param(row, *more, id="-".join([*more, row.name]), marks=marks)


def of(contract: type) -> Any:
    return lambda row: issubclass(row.contract, contract)


def values(*shape: int, seed: int = 7, dtype: Any = jnp.float32) -> jax.Array:
    """The content that positions are joined to: uniform in -1 ... 1. From numpy, which has nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).uniform(-1.0, 1.0, shape), jnp.float32).astype(dtype)


def random_params(scheme: pe.Scheme, seed: int = 0, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Learned arrays that differ enough from each other for a wrong row to be seen."""
    shapes = {name: initializer.shape for name, initializer in scheme.inits().items()}
    return {name: values(*shape, seed=seed, dtype=dtype) for name, shape in shapes.items()}


def spread(scheme: pe.Scheme, positions: Any) -> Any:
    """The positions, in as many numbers as the scheme takes: for every other axis tokens go backwards."""
    if scheme.position_axes is None or positions is None:
        return positions
    return jnp.stack([positions if a % 2 == 0 else LAST - positions for a in range(scheme.position_axes)], axis=-1)


def arguments(scheme: pe.Scheme, positions: jax.Array, key_positions: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
    """What the contract calls with: positions `[T]`, `[S]` and x `[T, N, D]`, or all three with a leading B."""
    at, keys_at = spread(scheme, positions), spread(scheme, key_positions)
    if isinstance(scheme, pe.Rotation):
        return x, at
    if isinstance(scheme, pe.ContentBias):
        shape = (key_positions.shape[-1], *x.shape[-2:])  # not a slice of x, which may be a shard
        keys = (jnp.arange(np.prod(shape)) * 7 % 11 - 5).astype(x.dtype).reshape(shape) / 4
        keys = jnp.broadcast_to(keys, (*x.shape[:-3], *shape))
        sides = zip((x, keys), scheme.content_axes, strict=True)
        return *(_content(side, axes) for side, axes in sides), at, keys_at
    if isinstance(scheme, pe.ValueBias):
        keys = 1 + jnp.arange(key_positions.shape[-1], dtype=x.dtype).reshape(*[1] * (x.ndim - 1), -1)
        return jnp.swapaxes(x, -3, -2)[..., :1] * keys, at, keys_at
    return (at, keys_at) if isinstance(scheme, pe.Bias) else (at,)


def _content(x: jax.Array, axes: str) -> jax.Array:
    """x `[..., T, N, D]` as the content of a scheme: of heads, of boxes (of positive sizes), or hidden states."""
    if axes.endswith(" 4"):
        return jnp.abs(x[..., 0, :4]) + jnp.asarray(0.5, x.dtype)
    if axes.endswith(" F"):
        return x.reshape(*x.shape[:-2], -1)
    if axes.endswith(", 2"):
        return x[..., :2]
    return x if axes.count(",") == 2 else x[..., 0]


def apply(bound: Any, positions: jax.Array, key_positions: jax.Array, x: jax.Array) -> jax.Array:
    return bound(*arguments(bound.scheme, positions, key_positions, x))


def output_shape(row: Row, *batch: int) -> tuple[int, ...]:
    """Of `apply`, by contract."""
    return {
        "additive": (*batch, T, row.features),
        "rotation": (*batch, T, row.heads, D),
        "bias": (*batch, row.heads, T, S),
        "value_bias": (*batch, T, row.heads, D),
    }[row.place]


def sequence_axis(row: Row) -> int:
    """The axis of the unbatched `apply` that follows the positions."""
    return 1 if row.place == "bias" else 0


def assert_same(row: Row, got: Any, want: Any) -> None:
    """Bit for bit where nothing is rounded on the way; one unit in the last place where sines are evaluated.

    A rotation sums two products. Compilers fuse one of them or the other or none, and an amplitude such as YaRN's lifts
    the tables over 1, where a unit is twice as large: four units.
    """
    assert got.dtype == want.dtype
    exact = isinstance(row.scheme, pe.Bias | pe.LearnedPositions) and row.exact
    units = 0 if exact else 4 if row.place != "additive" else 1
    largest = max(1.0, np.abs(want).max()) if "bias" in row.place else 1.0
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=0, atol=units * 1.2e-7 * largest)


# A causal attention layer with the scheme in its place, written three times. The parameters are the same tree.


def layer_params(row: Row, seed: int = 0) -> dict[str, Any]:
    shapes = {
        "query": (row.features, row.heads, D),
        "key": (row.features, K, D),
        "value": (row.features, K, D),
        "out": (row.heads, D, row.features),
    }
    kernels = {name: {"kernel": 0.5 * values(*shape, seed=seed + i)} for i, (name, shape) in enumerate(shapes.items())}
    learned = random_params(row.scheme, seed)
    return {**kernels, row.place: learned} if learned else kernels


def plain_layer(row: Row, params: Any, x: Any, positions: Any, *, segment_ids: Any = None, cache: Any = None) -> Any:
    """`attend`, `KVCache` and the bound scheme, as a user of plain JAX joins them."""
    bound = row.scheme.bind(params.get(row.place, {}))
    if cache is not None:
        positions = next_positions(x, cache, segment_ids) if positions is None else positions
        segment_ids = jnp.ones(x.shape[:2], jnp.int32) if segment_ids is None else segment_ids
    x = x + bound(spread(row.scheme, positions)) if row.place == "additive" else x
    query, key, value = (jnp.einsum("btf,fnd->btnd", x, params[name]["kernel"]) for name in ("query", "key", "value"))
    if row.place == "rotation":
        at = spread(row.scheme, positions)
        query, key = bound(query, at), bound.for_keys()(key, at)
    query_positions = spread(row.scheme, positions) if row.place in ("bias", "value_bias") else positions
    key_positions, key_segment_ids = query_positions, segment_ids
    if cache is not None:
        cache = cache.append(key, value, positions, segment_ids)
        key, value, key_positions, key_segment_ids = cache.keys, cache.values, cache.positions, cache.segment_ids
    out = pe.attend(
        query,
        key,
        value,
        bias=bound if row.place == "bias" else None,
        value_bias=bound if row.place == "value_bias" else None,
        causal=True,
        query_positions=query_positions,
        key_positions=key_positions,
        query_segment_ids=segment_ids,
        key_segment_ids=key_segment_ids,
    )
    out = jnp.einsum("btnd,ndf->btf", out, params["out"]["kernel"])
    return out if cache is None else (out, cache)


def linen_layer(row: Row, params: Any, x: Any, positions: Any, **keywords: Any) -> Any:
    if row.place == "additive":
        positions = next_positions(x, **keywords) if positions is None else positions
        at = spread(row.scheme, positions)
        x = x + linen.Scheme(row.scheme).apply({"params": params.get("additive", {})}, at)
    elif row.axes is not None:
        positions = spread(row.scheme, next_positions(x, **keywords) if positions is None else positions)
    module = linen.Attention(heads=row.heads, head_dim=D, key_value_heads=K, **row.in_attention)
    in_module = {name: value for name, value in params.items() if name != "additive"}
    return module.apply({"params": in_module}, x, positions, **keywords)


def nnx_layer(row: Row, params: Any, x: Any, positions: Any, **keywords: Any) -> Any:
    if row.place == "additive":
        positions = next_positions(x, **keywords) if positions is None else positions
        x = x + loaded(params.get("additive", {}), pnnx.Scheme, row.scheme)(spread(row.scheme, positions))
    elif row.axes is not None:
        positions = spread(row.scheme, next_positions(x, **keywords) if positions is None else positions)
    in_module = {name: value for name, value in params.items() if name != "additive"}
    settings = {"heads": row.heads, "head_dim": D, "key_value_heads": K, **row.in_attention}
    return loaded(in_module, pnnx.Attention, row.features, **settings)(x, positions, **keywords)


def next_positions(x: jax.Array, cache: Any, segment_ids: Any = None) -> jax.Array:
    """What `Attention` does when positions are None, for the additive schemes, which act before it."""
    return cache.next_positions(jnp.ones(x.shape[:2], jnp.int32) if segment_ids is None else segment_ids)


def loaded(params: Any, cls: Any, *settings: Any, **keywords: Any) -> Any:
    """The NNX module with these parameters. Its own initial ones are never computed."""
    module = nnx.eval_shape(lambda: cls(*settings, **keywords, rngs=nnx.Rngs(0)))
    nnx.update(module, params)
    return module


LAYERS = {"plain": plain_layer, "linen": linen_layer, "nnx": nnx_layer}
every_face = pytest.mark.parametrize("face", list(LAYERS))
OF_EACH_PLACE = ("learned", "rope_half", "rope_sections", "xpos", "t5_causal")


def every_cached(test: Any) -> Any:
    """Runs a test for every row in the plain layer, and for a row of each place in both faces: as `row` and `face`.

    `test_faces.py` shows for every row that the layers are the same.
    """
    pairs = [
        _param(row, TABLE, face, heavy=row.name not in OF_EACH_PLACE)
        for row in TABLE
        for face in LAYERS
        if row.cached and (face == "plain" or row.name in OF_EACH_PLACE)
    ]
    return pytest.mark.parametrize("row, face", pairs)(test)


@functools.cache
def layer(face: str, row: Row) -> Any:
    """`(params, x [B, T, F], positions [B, T], *, segment_ids, cache) -> [B, T, F]`, and the cache if given: jitted.

    Compiling is what these tests take their time for, so they share it: T or T / 2 tokens, segment ids always given.
    """
    return jax.jit(functools.partial(LAYERS[face], row))


def empty_cache(capacity: int = T) -> pe.KVCache:
    return pe.KVCache.empty(batch=B, capacity=capacity, heads=K, dim=D)


@functools.cache
def full_pass(row: Row) -> tuple[jax.Array, jax.Array]:
    """`[B, T, F]` in and out of the plain layer, without a cache: what decoding must reproduce."""
    x = values(B, T, row.features)
    positions = pe.positions.arange(T, jnp.zeros(B, jnp.int32))
    return x, layer("plain", row)(layer_params(row), x, positions, segment_ids=jnp.ones((B, T), jnp.int32))
