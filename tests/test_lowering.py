"""Every public function lowers for CPU, GPU and TPU, and compiles for real TPUs where libtpu is installed.

Run as a script where libtpu is installed, it compiles ahead of time for two TPU generations and prints how much memory
each function needs beside its arguments and results.
"""

import importlib.util
import inspect
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import schemes
from flax import linen as nn
from flax import nnx
from jax.experimental import checkify, topologies

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

B, T, S, N, K, D, F, V = 2, 256, 384, 8, 4, 64, 32, 100
PLATFORMS = ["cpu", "cuda", "tpu"]


def floats(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def ints(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def bools(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.bool_)


SEED = jax.ShapeDtypeStruct((), jnp.uint32)
QKV = floats(B, T, N, D), floats(B, S, K, D), floats(B, S, K, D)
CACHE = jax.eval_shape(lambda: pe.KVCache.empty(batch=B, capacity=S, heads=K, dim=D))
ORDINARY = pe.RoPE(dim=D, layout="half")
LONG_FACTORS = {"short_factor": (1.0,) * (D // 2), "long_factor": (2.0,) * (D // 2)}
STRETCHED = pe.RoPE(dim=D, layout="half", scaling=pe.LongRoPE(**LONG_FACTORS, original_length=4))
DYNAMIC = pe.RoPE(dim=D, layout="half", scaling=pe.DynamicNTK(factor=2.0, original_length=4))


def params_of(scheme):
    return jax.eval_shape(lambda: pe.init(scheme, jax.random.key(0)))


def bound(scheme, *args):
    """`scheme.bind(params)(*args)` as a function of the params too."""
    return lambda params, *args: scheme.bind(params)(*args), params_of(scheme), *args


def checked(function):
    """With its checkify guard: the error is returned."""
    return lambda *args: checkify.checkify(function)(*args)[1]


def linen_module(module, *args, **kwargs):
    variables = jax.eval_shape(lambda *args: module.init(jax.random.key(0), *args, **kwargs), *args)
    return lambda variables, *args: module.apply(variables, *args, **kwargs), variables, *args


def nnx_module(make, *args, **kwargs):
    graph, state = nnx.split(nnx.eval_shape(make))
    return lambda state, *args: nnx.merge(graph, state)(*args, **kwargs), nnx.to_pure_dict(state), *args


T5 = pe.T5Bias(heads=N, bidirectional=False)
LEARNED = pe.LearnedPositions(length=S, features=F)


def all_of(implementation):
    """`attend` with every argument that all implementations take; 1.5 * 2^20 logits, which are several tiles."""

    def function(q, k, v, table, mask, qp, kp, qi, ki):
        where = {"query_positions": qp, "key_positions": kp, "query_segment_ids": qi, "key_segment_ids": ki}
        masks = {"mask": mask, "causal": True, "window": 100}
        bias = T5.bind({"table": table})
        return pe.attend(q, k, v, bias=bias, **masks, **where, logits_soft_cap=30.0, implementation=implementation)

    return function, *QKV, floats(N, T5.buckets), bools(T, S), ints(B, T), ints(B, S), ints(B, T), ints(B, S)


def long_attention(q, k, v, table):
    return pe.attend(q, k, v, bias=T5.bind({"table": table}), causal=True, implementation="xla")


def turned_at_a_length(rope):
    return lambda x, positions, length: rope.bind({}, length=length)(x, positions)


FUNCTIONS = {  # name -> (function, *shapes of its arguments)
    "positions.arange": (lambda offset: pe.positions.arange(T, offset), ints(B)),
    "positions.from_segment_ids": (pe.positions.from_segment_ids, ints(B, T)),
    "positions.from_mask": (pe.positions.from_mask, bools(B, T)),
    "positions.cache_overflows": (lambda lengths: pe.positions.cache_overflows(lengths, 1, S), ints(B)),
    "positions.check_cache": (checked(lambda lengths: pe.positions.check_cache(lengths, 1, S)), ints(B)),
    "positions.grid": (lambda: pe.positions.grid((16, 24)),),
    "positions.randomized": (lambda seed: pe.positions.randomized(jax.random.key(seed), T, S), SEED),
    "positions.pose": (lambda seed: pe.positions.pose(jax.random.key(seed), T, S, chunks=3), SEED),
    "positions.zigzag": (lambda: pe.positions.zigzag(T, 4),),
    "positions.inverse_order": (pe.positions.inverse_order, ints(T)),
    "mrope.xdrope_positions": (
        lambda types, images, ids: pe.mrope.xdrope_positions(types, image_grids=images, segment_ids=ids, merge=2),
        *(ints(B, T), ints(B, 5, 3), ints(B, T)),
    ),
    "mrope.canvas_positions": (
        lambda tokens, types, images, videos, ids: pe.mrope.canvas_positions(
            tokens,
            types,
            image_grids=images,
            video_grids=videos,
            segment_ids=ids,
            **{"merge": 2, "image_start_id": 1, "image_end_id": 2},
            **{"slice_start_id": 3, "slice_end_id": 4, "newline_id": 5},
        ),
        *(ints(B, T), ints(B, T), ints(B, 5, 2), ints(6, 2), ints(B, T)),
    ),
    "mrope.drawn_positions": (
        lambda grids, start: pe.mrope.drawn_positions(grids, start, length=5),
        *(ints(B, 2, 3), ints(B)),
    ),
    "mrope.timestamps": (lambda times: pe.mrope.timestamps(times, seconds=0.5, count=8), floats(B, T)),
    "vision.augmented": (
        lambda centers, draws: pe.vision.augmented(centers, draws, shift=0.5, rescale=2.0),
        floats(T, 2),
        floats(5),
    ),
    "mrope.positions": (
        lambda types, images, videos, seconds, ids: pe.mrope.positions(
            types,
            image_grids=images,
            video_grids=videos,
            seconds_per_grid=seconds,
            tokens_per_second=2,
            segment_ids=ids,
            merge=2,
        ),
        *(ints(B, T), ints(B, 5, 3), ints(6, 3), floats(6), ints(B, T)),
    ),
    "positions.unravel": (lambda numbers: pe.positions.unravel(numbers, (4, 8)), ints(B, T)),
    "vision.mask_coordinates": (lambda mask: pe.vision.mask_coordinates(mask, normalize=True), bools(B, 4, 5)),
    "resize_table": (lambda t: pe.resize_table(t, (4, 4), (6, 7), before=1), floats(17, F)),
    "resize_bias_table": (lambda t: pe.resize_bias_table(t, (2, 3), (3, 4), extra=3), floats(N, 18)),
    "resize_to_shapes": (lambda t, shapes: pe.resize_to_shapes(t, shapes, length=T), floats(4, 5, F), ints(B, 2)),
    "sample_table": (pe.sample_table, floats(4, 5, F), floats(B, T, 2)),
    "masks.causal": (pe.masks.causal, ints(B, T), ints(B, S)),
    "masks.window": (lambda q, k: pe.masks.window(q, k, (3, 0)), ints(T), ints(S)),
    "masks.segment": (pe.masks.segment, ints(B, T), ints(B, S)),
    "masks.padding": (pe.masks.padding, bools(B, S)),
    "embed": (pe.embed, floats(V, F), ints(B, T)),
    "embed, bfloat16": (lambda table, ids: pe.embed(table, ids, dtype=jnp.bfloat16), floats(V, F), ints(B, T)),
    "embed, checked": (checked(lambda t, ids: pe.embed(t, ids, out_of_range="checkify")), floats(V, F), ints(B, T)),
    "embed_hashed": (pe.embed_hashed, floats(4, V, F), ints(B, T)),
    "logits": (pe.logits, floats(V, F), floats(B, T, F, dtype=jnp.bfloat16)),
    "init": (lambda seed: pe.init(T5, jax.random.key(seed)), SEED),
    "normal": (lambda seed: pe.normal(0.02, (V, F))(jax.random.key(seed)), SEED),
    "LearnedPositions": bound(LEARNED, ints(B, T)),
    "Sinusoidal": bound(pe.Sinusoidal(features=F), ints(B, T)),
    "AxialPositions": bound(pe.AxialPositions(shape=(4, 6), features=F, join="add"), ints(B, T, 2)),
    "cumulative_gates": (pe.cumulative_gates, floats(B, S, N)),
    "TilePositions": bound(pe.TilePositions(arrangements=3, tiles=4, patches=5, features=F), ints(B, T, 3)),
    "conv_positions": (
        lambda x, kernel, bias: pe.conv_positions(x, kernel, bias=bias, stride=2),
        *(floats(B, T, F), floats(4, F // 2, F), floats(F)),
    ),
    "weight_norm": (pe.weight_norm, floats(4, F // 2, F), floats(4)),
    "FourierFeatures": bound(pe.FourierFeatures(features=F), floats(B, T, 2)),
    "Sinusoidal, axes": bound(pe.Sinusoidal(features=F, axes=2, fractional=True, scale=6.0), floats(B, T, 2)),
    "Sinusoidal, float32": bound(pe.Sinusoidal(features=F, phase="float32"), ints(T)),
    "RoPE": bound(ORDINARY, floats(B, T, N, D), ints(B, T)),
    "RoPE, bfloat16": bound(ORDINARY, floats(B, T, N, D, dtype=jnp.bfloat16), ints(T)),
    "RoPE, interleaved": bound(pe.RoPE(dim=D, layout="interleaved"), floats(B, T, N, D), ints(T)),
    "RoPE, partial": bound(pe.RoPE(dim=32, layout="half", rotated="last"), floats(B, T, N, D), ints(T)),
    "RoPE, float32": bound(pe.RoPE(dim=D, layout="half", phase="float32"), floats(B, T, N, D), ints(T)),
    "RoPE, learned": bound(pe.RoPE(dim=D, layout="half", learned=True), floats(B, T, N, D), ints(T)),
    "RoPE, fractional": bound(pe.RoPE(dim=D, layout="half", fractional=True), floats(B, T, N, D), floats(T)),
    "Axes": bound(
        pe.RoPE(dim=D, layout="half", axes=pe.Axes.blocks(axes=2, count=D // 4)), floats(B, T, N, D), ints(B, T, 2)
    ),
    "XPos": bound(pe.XPos(rope=ORDINARY, centre=0), floats(B, T, N, D, dtype=jnp.bfloat16), ints(B, T)),
    "FoPE": bound(pe.FoPE(dim=D, layout="half", length=99, key_value_heads=4), floats(B, T, N, D), ints(B, T)),
    "RoPEMixed": bound(pe.RoPEMixed(dim=D, layout="half", key_value_heads=4), floats(B, T, N, D), ints(B, T, 2)),
    "SteppedTemperature": (pe.SteppedTemperature(beta=0.1, length=64), ints(B, T)),
    "LogTemperature": (pe.LogTemperature(length=64), ints(B, T)),
    "DynamicNTK": (turned_at_a_length(DYNAMIC), floats(B, T, N, D), ints(B, T), ints(B)),
    "LongRoPE": (turned_at_a_length(STRETCHED), floats(B, T, N, D), ints(T), ints()),
    "RoPE.cos_sin": (ORDINARY.cos_sin, ints(B, T)),
    "rotate": (
        lambda x, cos, sin: pe.rotate(x, cos, sin, layout="half", inverse=True),
        floats(B, T, N, D),
        floats(T, D // 2),
        floats(T, D // 2),
    ),
    "rerotate": (
        lambda keys, at: pe.rerotate(keys, at, old=ORDINARY.bind({}), new=DYNAMIC.bind({}, length=at[-1] + 1)),
        floats(B, S, N, D),
        ints(S),
    ),
    "permute_layout": (
        lambda kernel: pe.permute_layout(kernel, source="half", target="interleaved", heads=N),
        floats(F, N * D),
    ),
    "T5Bias": bound(T5, ints(T), ints(S)),
    "T5Bias, batched": bound(T5, ints(B, T), ints(B, S)),
    "ALiBi": bound(pe.ALiBi(heads=N), ints(T), ints(S)),
    "attend": (pe.attend, *QKV),
    **{f"attend, all of it, {name}": all_of(name) for name in ("reference", "xla")},
    "attend, dropout": (
        lambda q, k, v, seed: pe.attend(q, k, v, dropout_rate=0.1, dropout_key=jax.random.key(seed)),
        *QKV,
        SEED,
    ),
    "bias_to_channels": (
        lambda q, k, qp, kp: pe.bias_to_channels(q, k, *pe.ALiBi(heads=N).factors(qp, kp)),
        *(floats(B, T, N, D, dtype=jnp.bfloat16), floats(B, S, K, D, dtype=jnp.bfloat16)),
        *(ints(B, T), ints(S)),
    ),
    "KVCache": (pe.KVCache.append, CACHE, floats(B, 3, K, D), floats(B, 3, K, D), ints(B, 3), ints(B, 3)),
    "linen.TokenEmbed": linen_module(linen.TokenEmbed(vocabulary=V, features=F), ints(B, T)),
    "linen.Attention": linen_module(
        linen.Attention(heads=4, rotation=pe.RoPE(dim=8, layout="half"), bias=pe.ALiBi(heads=4)),
        floats(B, T, F),
        ints(T),
    ),
    "linen.AttentionFn": linen_module(
        nn.MultiHeadDotProductAttention(4, attention_fn=linen.AttentionFn(bias=pe.T5Bias(heads=4, bidirectional=True))),
        floats(B, T, F),
    ),
    "nnx.TokenEmbed": nnx_module(lambda: pnnx.TokenEmbed(V, F, rngs=nnx.Rngs(0)), ints(B, T)),
    "nnx.Attention": nnx_module(
        lambda: pnnx.Attention(F, heads=4, rotation=pe.RoPE(dim=8, layout="half"), rngs=nnx.Rngs(0)),
        floats(B, T, F),
        ints(T),
    ),
    "nnx.AttentionFn": nnx_module(
        lambda: nnx.MultiHeadAttention(
            4,
            F,
            decode=False,
            attention_fn=pnnx.AttentionFn(bias=pe.T5Bias(heads=4, bidirectional=True), rngs=nnx.Rngs(0)),
            rngs=nnx.Rngs(0),
        ),
        floats(B, T, F),
    ),
}


def shapes_for(row):
    at = pe.positions.arange(schemes.T), pe.positions.arange(schemes.S)
    return jax.eval_shape(lambda: schemes.arguments(row.scheme, *at, jnp.ones((schemes.T, row.heads, schemes.D))))


for row in schemes.TABLE:  # the first of each kind that has no line of its own above
    if not any(name.partition(",")[0] == type(row.scheme).__name__ for name in FUNCTIONS):
        FUNCTIONS[f"{type(row.scheme).__name__}, {row.name}"] = bound(row.scheme, *shapes_for(row))


def is_float(tree):
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


def gradient(name):
    """The gradient of the sum of squares of what it returns, by all of its floating arguments; None without any."""
    function, *args = FUNCTIONS[name]
    learned = tuple(i for i, arg in enumerate(args) if is_float(arg))
    out = [leaf for leaf in jax.tree.leaves(jax.eval_shape(function, *args)) if is_float(leaf)]
    if not learned or not out:
        return None

    def total(*args):
        return sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(function(*args)) if is_float(x))

    return jax.grad(total, argnums=learned)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lowers_for_every_platform(name):
    function, *args = FUNCTIONS[name]
    for f in (function, gradient(name)):
        if f is not None:
            exported = jax.export.export(jax.jit(f), platforms=PLATFORMS)(*args)
            assert list(exported.platforms) == PLATFORMS


def test_every_public_function_is_in_the_table():
    def public(module):
        functions = {name: x for name, x in vars(module).items() if inspect.isfunction(x)}
        return {name for name, x in functions.items() if x.__module__.startswith(module.__name__)}

    modules = {"positions": pe.positions, "mrope": pe.mrope, "vision": pe.vision, "masks": pe.masks}
    needed = {f"{prefix}.{name}" for prefix, module in modules.items() for name in public(module) if name[0] != "_"}
    contracts = {
        "Additive",
        "Bias",
        "Bound",
        "ContentBias",
        "DistanceBias",
        "Initializer",
        "Rotation",
        "Scaling",
        "Scheme",
        "ValueBias",
    }
    needed |= {name for name, x in vars(pe).items() if callable(x) and not name.startswith("_")} - contracts
    needed -= {"alibi_slopes", "longrope_factor", "yarn_mscale", "yarn_softmax_scale"}  # numbers, on the host
    needed -= {f"vision.{name}" for name in ("merged_grid", "windows", "patch_centers", "nearest_rows", "lengths")}
    needed -= {"vision.table_taps", "resize_matrix", "masks.neighbourhood"}  # on the host, from static sizes
    classes = {name: x for name, x in vars(pe).items() if inspect.isclass(x)}
    scalings = {name: x for name, x in classes.items() if issubclass(x, pe.Scaling)}
    needed -= {name for name, x in scalings.items() if not hasattr(x, "scale_to")}  # frequencies, on the host
    assert needed <= {name.partition(",")[0] for name in FUNCTIONS}


def test_learned_arguments_have_gradients():
    """Guards the table: these must not lose theirs by an argument that is not seen as learned."""
    without = {name for name in FUNCTIONS if gradient(name) is None}
    assert not without & {"embed", "LearnedPositions", "RoPE", "RoPE, learned", "T5Bias", "attend", "nnx.AttentionFn"}


# Ahead-of-time compilation for TPUs

LONG = 4096
LONGER = [floats(1, 4 * LONG, N, 128, dtype=jnp.bfloat16)] * 3
MEASURED = {  # name -> (function, *shapes); the memory it needs beside arguments and results is printed
    "T5Bias [8, 4096, 4096]": bound(T5, ints(LONG), ints(LONG)),
    "rotate half bfloat16 [1, 4096, 16, 128]": (
        lambda x, cos, sin: pe.rotate(x, cos, sin, layout="half"),
        floats(1, LONG, 16, 128, dtype=jnp.bfloat16),
        floats(LONG, 64),
        floats(LONG, 64),
    ),
    "attend xla T5Bias bfloat16 [1, 16384, 8, 128]": (long_attention, *LONGER, floats(N, T5.buckets)),
    "RoPE half bfloat16 [1, 4096, 16, 128]": bound(
        pe.RoPE(dim=128, layout="half"), floats(1, LONG, 16, 128, dtype=jnp.bfloat16), ints(LONG)
    ),
    "RoPE interleaved bfloat16 [1, 4096, 16, 128]": bound(
        pe.RoPE(dim=128, layout="interleaved"), floats(1, LONG, 16, 128, dtype=jnp.bfloat16), ints(LONG)
    ),
}
ALL_OF = ("attend, all of it, reference", "attend, all of it, xla")
COMPILED = ("embed", "LearnedPositions", "Sinusoidal", "RoPE, learned", "T5Bias", *ALL_OF, "KVCache")
TOPOLOGIES = ("v5e:2x2", "v6e:2x2")


def temporary_bytes(function, args, topology):
    """How much memory the program compiled for one of the topology's TPUs needs; -1 when it does not fit."""
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    placed = jax.sharding.SingleDeviceSharding(device)
    lowered = jax.jit(function, in_shardings=placed, out_shardings=placed).trace(*args)
    try:
        compiled = lowered.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return -1
    return compiled.memory_analysis().temp_size_in_bytes


def main():
    FUNCTIONS.update(MEASURED)
    found = {}
    for topology in TOPOLOGIES:
        for name in (*COMPILED, *MEASURED):
            function, *args = FUNCTIONS[name]
            for kind, f in (("forward", function), ("gradient", gradient(name))):
                if f is not None:
                    found[f"{topology} {name} {kind}"] = temporary_bytes(f, args, topology)
    print(json.dumps(found))


def test_lengths_may_be_symbolic():
    """A model that is exported once for all lengths: positions, a rotation, and attention that keeps its logits."""
    rope, bias = pe.RoPE(dim=D, layout="half"), pe.ALiBi(heads=N).bind({})

    def f(x, offset):
        at = pe.positions.arange(x.shape[1], offset)
        q = rope.bind({})(x, at)
        return pe.attend(
            q, q, x, bias=bias, causal=True, query_positions=at, key_positions=at, implementation="reference"
        )

    batch, length = jax.export.symbolic_shape("batch, length")
    exported = jax.export.export(jax.jit(f))(floats(batch, length, N, D), ints(batch))
    for shape in ((1, 3), (2, 8)):
        x = jax.random.normal(jax.random.key(0), (*shape, N, D))
        offset = jnp.arange(5, 5 + shape[0], dtype=jnp.int32)
        assert jnp.array_equal(exported.call(x, offset), jax.jit(f)(x, offset))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed: pip install 'jax[tpu]'")
def test_compiles_for_tpus():
    """In a process of its own: libtpu reads these variables once, when it is loaded."""
    tpu = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    environment = {**os.environ, **tpu, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for topology in TOPOLOGIES:
        for name in COMPILED:
            assert found[f"{topology} {name} forward"] >= 0
        # A rotation is one pass over x, and a bias makes little that is larger than itself, forward and backward.
        assert found[f"{topology} rotate half bfloat16 [1, 4096, 16, 128] forward"] <= 2 * LONG * 16 * 128
        for kind in ("forward", "gradient"):
            tiled = found[f"{topology} attend xla T5Bias bfloat16 [1, 16384, 8, 128] {kind}"]
            assert 0 <= tiled <= 2**29  # the logits alone are 8 GiB
            assert 0 <= found[f"{topology} T5Bias [8, 4096, 4096] {kind}"] <= 3 * 4 * N * LONG * LONG


if __name__ == "__main__":
    main()
