"""Every refusal of the package: each row is one bad argument, and the message it must get.

A message names the argument and what came (the start of it is made from the row), then what is needed and the remedy.
Rows are in the files `refused_*.py`; `...` in a row stands for any text. The last test of the rows walks the source
and asserts that no `raise` and no check is without a row.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import traceback
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.experimental import checkify
from refusals import (
    ALIBI,
    CACHE,
    CENTERS,
    COS,
    DRAWS,
    GRIDS,
    IDS,
    KEY,
    KEYS,
    LEARNED,
    NEW,
    QUERY,
    REROTATE,
    ROPE,
    SIN,
    TABLE,
    TYPES,
    B,
    F,
    N,
    P,
    Q,
    S,
    T,
    V,
    X,
)

import posembed_jax as pe
from posembed_jax import masks, mrope, positions, vision

PACKAGE = Path(pe.__file__).parent
ROWS = [
    row
    for path in sorted(Path(__file__).parent.glob("refused_*.py"))
    for row in importlib.import_module(path.stem).ROWS
]


def row_id(row):
    function, argument = row[0], row[1]
    function = getattr(function, "func", function)
    return f"{getattr(function, '__qualname__', type(function).__name__)}-{argument}"


def pattern(row):
    """A regular expression for the message: the argument, what came, and what the row says, `...` being anything."""
    _, argument, value, _, says, *start = row
    is_array = isinstance(value, jax.Array | np.ndarray)
    came = f"{value.dtype}{list(value.shape)}" if is_array else f"...{value!r}"
    text = says if start else f"{argument} is {came}...{says}"
    return re.compile(".*".join(re.escape(part.strip()) for part in text.split("...")), re.DOTALL)


@functools.cache
def refusal(index):
    function, argument, value = ROWS[index][:3]
    try:
        function(**{argument: value})
    except Exception as error:
        return error


@pytest.mark.parametrize("index", range(len(ROWS)), ids=[row_id(row) for row in ROWS])
def test_refused(index):
    error, kind = refusal(index), ROWS[index][3]
    assert type(error) is kind, f"expected {kind.__name__}, got {error!r}"
    assert pattern(ROWS[index]).search(str(error)), f"{error}\ndoes not match\n{pattern(ROWS[index]).pattern}"


def refusing_nodes():
    """Every `raise`, and outside of checks.py every call of a check."""
    readers = {"describe", "is_concrete", "compute_dtype", "are_integers"}  # what in checks.py refuses nothing
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Raise():
                    yield path, node
                case ast.Call(func=ast.Attribute(value=ast.Name(id="checks"), attr=name)) if name not in readers:
                    yield path, node


def test_every_refusal_has_a_row():
    reached = set()
    for index in range(len(ROWS)):
        error = refusal(index)
        while error is not None:
            frames = traceback.walk_tb(error.__traceback__)
            reached |= {(Path(frame.f_code.co_filename), line) for frame, line in frames}
            error = error.__cause__
    missing = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)[:100]}"
        for path, node in refusing_nodes()
        if not any((path, line) in reached for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert not missing, "\n".join(missing)


# Every function that takes arrays, with arguments that are right. Options are closed over: only arrays are traced.
GOOD = {
    "embed": (pe.embed, {"table": TABLE, "ids": IDS}),
    "conv_positions": (
        pe.conv_positions,
        {"x": jnp.arange(20.0).reshape(1, 5, 4) / 20, "kernel": jnp.ones((3, 2, 4)), "bias": jnp.arange(4.0)},
    ),
    "weight_norm": (pe.weight_norm, {"direction": 1 + jnp.arange(24.0).reshape(3, 2, 4), "gain": jnp.arange(3.0)}),
    "embed_hashed": (pe.embed_hashed, {"tables": jnp.arange(24.0).reshape(2, 4, 3), "ids": IDS}),
    "logits": (functools.partial(pe.logits, scale=0.5), {"table": TABLE, "x": TABLE[:T]}),
    "rotate": (functools.partial(pe.rotate, layout="half"), {"x": QUERY, "cos": COS, "sin": SIN}),
    "permute_layout": (functools.partial(pe.permute_layout, source="half", target="interleaved"), {"array": X}),
    "rerotate": (REROTATE, {"keys": KEYS, "positions": Q}),
    "SteppedTemperature": (pe.SteppedTemperature(beta=0.1, length=2), {"positions": P}),
    "LogTemperature": (pe.LogTemperature(length=2), {"positions": P}),
    "attend": (
        functools.partial(pe.attend, bias=ALIBI, causal=True, window=2, logits_soft_cap=30.0),
        {
            "query": QUERY,
            "key": KEYS,
            "value": KEYS,
            "mask": jnp.ones((T, S), bool),
            "query_positions": P + 2,
            "key_positions": Q,
            "query_segment_ids": IDS + 1,
            "key_segment_ids": jnp.ones((B, S), jnp.int32),
        },
    ),
    "bias_to_channels": (
        pe.bias_to_channels,
        {"query": QUERY, "key": KEYS, "query_factors": jnp.ones((T, N, 2)), "key_factors": jnp.ones((B, S, 1, 2))},
    ),
    "init": (lambda data: pe.init(LEARNED, jax.random.wrap_key_data(data)), {"data": jax.random.key_data(KEY)}),
    "LearnedPositions": (
        lambda table, positions: LEARNED.bind({"table": table})(positions),
        {"table": TABLE[:4], "positions": P},
    ),
    "Sinusoidal": (pe.Sinusoidal(features=F).bind({}), {"positions": P}),
    "RoPE": (ROPE.bind({}), {"x": QUERY, "positions": P}),
    "T5Bias": (
        lambda table, **ranges: pe.T5Bias(heads=N, buckets=V - 1, bidirectional=True).bind({"table": table})(**ranges),
        {"table": TABLE[:N], "query_positions": P, "key_positions": Q},
    ),
    "ALiBi": (ALIBI, {"query_positions": P, "key_positions": Q}),
    "cumulative_gates": (pe.cumulative_gates, {"log_gates": -X}),
    "positions.arange": (functools.partial(positions.arange, T), {"offset": P}),
    "positions.from_segment_ids": (positions.from_segment_ids, {"segment_ids": IDS}),
    "positions.from_mask": (positions.from_mask, {"mask": IDS > 0}),
    "positions.cache_overflows": (functools.partial(positions.cache_overflows, capacity=3), {"lengths": P, "new": P}),
    "positions.randomized": (
        lambda data: positions.randomized(jax.random.wrap_key_data(data), T, 9),
        {"data": jax.random.key_data(KEY)},
    ),
    "positions.pose": (
        lambda data: positions.pose(jax.random.wrap_key_data(data), T, 9),
        {"data": jax.random.key_data(KEY)},
    ),
    "positions.inverse_order": (positions.inverse_order, {"order": P[::-1]}),
    "mrope.positions": (
        functools.partial(mrope.positions, merge=2, tokens_per_second=2),
        {
            "token_types": TYPES,
            "image_grids": GRIDS,
            "video_grids": jnp.array([[3, 2, 2]]),
            "seconds_per_grid": jnp.array([0.5]),
            "segment_ids": jnp.ones_like(TYPES),
        },
    ),
    "mrope.xdrope_positions": (
        functools.partial(mrope.xdrope_positions, merge=2),
        {
            "token_types": jnp.ones((B, 3), jnp.int32),
            "image_grids": jnp.array([[[1, 2, 4]], [[1, 2, 4]]]),
            "segment_ids": jnp.ones((B, 3), jnp.int32),
        },
    ),
    "mrope.canvas_positions": (
        functools.partial(
            mrope.canvas_positions,
            **{"merge": 2, "image_start_id": 1, "image_end_id": 2},
            **{"slice_start_id": 3, "slice_end_id": 4, "newline_id": 5},
        ),
        {
            "tokens": jnp.array([[1, 7, 2], [1, 8, 2]]),
            "token_types": jnp.array([[0, 1, 0], [0, 2, 0]]),
            "image_grids": jnp.array([[[2, 2]], [[0, 0]]]),
            "video_grids": jnp.array([[2, 2]]),
            "segment_ids": jnp.ones((B, 3), jnp.int32),
        },
    ),
    "mrope.drawn_positions": (
        functools.partial(mrope.drawn_positions, length=4),
        {"grids": jnp.array([[[1, 2, 2]]] * B), "start": jnp.zeros(B, jnp.int32)},
    ),
    "mrope.timestamps": (functools.partial(mrope.timestamps, seconds=0.5, count=8), {"times": jnp.ones((B, T))}),
    "vision.augmented": (functools.partial(vision.augmented, shift=0.5), {"centers": CENTERS, "draws": DRAWS}),
    "positions.unravel": (functools.partial(positions.unravel, shape=(2, 3)), {"numbers": P}),
    "vision.mask_coordinates": (
        functools.partial(vision.mask_coordinates, normalize=True),
        {"mask": jnp.ones((1, 2, 3), bool)},
    ),
    "resize_table": (functools.partial(pe.resize_table, old=(2, 3), new=(2, 4), before=1), {"table": jnp.ones((7, F))}),
    "resize_bias_table": (
        functools.partial(pe.resize_bias_table, old=(2, 2), new=(2, 3)),
        {"table": jnp.arange(18.0).reshape(2, 9)},
    ),
    "resize_to_shapes": (
        functools.partial(pe.resize_to_shapes, length=6),
        {"table": jnp.arange(12.0).reshape(2, 3, 2), "shapes": jnp.array([[1, 2], [3, 2]])},
    ),
    "sample_table": (
        pe.sample_table,
        {"table": jnp.arange(12.0).reshape(2, 3, 2), "coordinates": jnp.array([[0.5, 1.2]])},
    ),
    "masks.causal": (masks.causal, {"query_positions": P, "key_positions": Q}),
    "masks.window": (functools.partial(masks.window, size=1), {"query_positions": P, "key_positions": Q}),
    "masks.segment": (masks.segment, {"query_segment_ids": P, "key_segment_ids": Q}),
    "masks.padding": (masks.padding, {"key_mask": Q > 1}),
    "KVCache": (CACHE.append, NEW),
}


def test_every_function_of_arrays_has_a_good_call():
    takes = set()
    for module, prefix in (
        (pe, ""),
        (positions, "positions."),
        (mrope, "mrope."),
        (vision, "vision."),
        (masks, "masks."),
    ):
        for name, public in vars(module).items():
            annotations = getattr(public, "__annotations__", {}) if callable(public) else {}
            arguments = [kind for argument, kind in annotations.items() if argument != "return"]
            if (
                not isinstance(public, type)
                and not name.startswith("_")
                and any("jax.Array" in str(a) for a in arguments)
            ):
                takes.add(prefix + name)
    assert takes - {"positions.check_cache"} <= set(GOOD)  # check_cache answers by a checkify.check: tested below


@functools.cache
def result(name):
    function, arguments = GOOD[name]
    return function(**arguments)


# What only the values tell cannot be refused under jit; what only the host's 64 bits hold cannot be traced.
TRACEABLE = [index for index, row in enumerate(ROWS) if isinstance(row[2], jax.Array) and row[3] is not ValueError]


class DoorTest(chex.TestCase):
    """The door is the same on traced, device and host arrays."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    @parameterized.named_parameters((name, name) for name in GOOD)
    def test_passes(self, name):
        function, arguments = GOOD[name]
        out = self.variant(lambda arguments: function(**arguments))(arguments)
        chex.assert_trees_all_equal_shapes_and_dtypes(out, result(name))
        chex.assert_trees_all_close(out, result(name), rtol=1e-6, atol=1e-6)

    @chex.variants(with_jit=True, without_device=True)  # `test_refused` is the other two
    @parameterized.parameters(*TRACEABLE)
    def test_refuses(self, index):
        function, argument, value, kind = ROWS[index][:4]
        with pytest.raises(kind, match=pattern(ROWS[index])):
            self.variant(lambda value: function(**{argument: value}))(value)


# What only the values tell, when they are traced.
OUTSIDE = jnp.array([0, -1, V, V - 1, -(2**31), 2**31 - 1], jnp.int32)
LOOK_UPS = {
    "embed": lambda table, ids, **options: pe.embed(table, ids, **options),
    "learned": lambda table, ids, **options: pe.LearnedPositions(length=V, features=F, **options).bind(
        {"table": table}
    )(ids),
}
NUMBERED = jnp.arange(V * F, dtype=jnp.float32).reshape(V, F)


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_traced_indices_out_of_range_never_get_a_neighbours_row(look_up):
    rows = np.asarray(jax.jit(look_up)(NUMBERED, OUTSIDE))
    np.testing.assert_array_equal(rows[[0, 3]], NUMBERED[jnp.array([0, V - 1])])
    assert np.isnan(rows[[1, 2, 4, 5]]).all()


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_clipped_indices_get_the_nearest_row(look_up, transform):
    rows = transform(functools.partial(look_up, out_of_range="clip"))(NUMBERED, OUTSIDE)
    np.testing.assert_array_equal(rows, NUMBERED[jnp.array([0, 0, V - 1, V - 1, 0, V - 1])])


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_checkify_tells_indices_out_of_range(look_up):
    checked = checkify.checkify(jax.jit(functools.partial(look_up, out_of_range="checkify")))
    error, rows = checked(NUMBERED, jnp.array([0, V - 1]))
    assert error.get() is None
    np.testing.assert_array_equal(rows, NUMBERED[jnp.array([0, V - 1])])
    error, _ = checked(NUMBERED, jnp.array([-1, V]))
    assert re.search(r"(ids|positions) go from -1 to 7, outside the table's rows 0 to 6", error.get())


def test_checkify_tells_a_cache_overrun():
    checked = checkify.checkify(jax.jit(functools.partial(positions.check_cache, capacity=4)))
    assert checked(jnp.array([3, 2]), jnp.array([1, 2]))[0].get() is None
    error, _ = checked(jnp.array([3, 2]), jnp.array([1, 3]))
    assert "new tokens do not fit: the cache holds 3 of at most 4 tokens" in error.get()


def test_traced_cache_overrun_is_flagged_and_overwrites_nothing():
    append = jax.jit(lambda cache, new: cache.append(**new))
    once = append(CACHE, NEW)
    new = {**NEW, "keys": -NEW["keys"], "segment_ids": jnp.array([[2, 2, 2], [2, 0, 0]])}
    twice = append(once, new)
    assert once.overflow.tolist() == [False, False] and twice.overflow.tolist() == [True, False]
    np.testing.assert_array_equal(twice.keys[:, :T], once.keys[:, :T])
    assert twice.segment_ids.tolist() == [[1, 1, 1, 2]] * B


def test_int64_is_refused_unless_its_values_can_be_read_on_the_host():
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match=r"ids is int64\[2\].*cast it with `.astype\(jnp.int32\)`"),
    ):
        pe.embed(TABLE, jnp.array([0, 1], jnp.int64))
    np.testing.assert_array_equal(pe.embed(NUMBERED, np.array([0, V - 1], np.int64)), NUMBERED[jnp.array([0, V - 1])])
    with pytest.raises(TypeError, match=r"positions is int64\[1\].*cast it"):
        ROPE.cos_sin(np.array([-(2**31) - 1]))


@pytest.mark.parametrize("same", [[0, 1, 2], (0, 1, 2), np.arange(T, dtype=np.uint8), jnp.arange(T, dtype=jnp.int8)])
def test_integers_of_other_kinds_are_taken(same):
    np.testing.assert_array_equal(ALIBI(same, Q), ALIBI(P, Q))
