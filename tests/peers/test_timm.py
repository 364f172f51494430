"""What timm tests of its rotary embeddings of pictures: axial, mixed, M-RoPE and DINOv3, and their augmentation."""

import dataclasses
import math
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite, call

import posembed_jax as pe
from posembed_jax import linen, vision

TORCH = "torch's own machinery: tracing by torch.fx, meta devices, autocast, a default dtype"
CACHES = "nothing is cached or stored: a rotation is made of positions when it is called"
MODELS = "timm's whole models"
SUITE = Suite(
    peer="timm",
    repository="huggingface/pytorch-image-models",
    commit="83e6eb59b1cf2e0df321a4df4131baa16d745247 (`test_models.py` at aa4b5850c1543fa488abf260f18390eda46cf85d)",
    licence="Apache-2.0",
    files=(
        File(
            path="tests/test_layers_pos_embed.py",
            here=(
                "test_build_fourier_pos_embed_matches_legacy",
                "test_build_rotary_pos_embed_matches_legacy",
                "test_build_grid_centered_matches_dinov3_coords",
                "test_build_grid_xy_swaps_channels",
                "test_rotary_module_matches_functional",
                "test_rotary_cat_get_batch_embeds_matches_get_embed",
                "test_dinov3_module",
                "test_rotary_freqs_stay_fp32_after_cast",
                "test_mixed_rope_low_precision_cast",
                "test_dinov3_temperature_none",
                "test_mixed_rope_float32_autocast_and_gradients",
                "test_mrope_reference_precision_and_meta_init",
                "test_dinov3_reference_and_cache_dtype",
                "test_rope_batch_padding_dtype_and_gradients",
                "test_rotary_apply_output_dtype_and_rounding",
                "test_rotary_apply_list_preserves_each_dtype",
                "test_rope_aug_reference_and_rng",
                "test_rope_aug_batch_sampling",
                "test_rope_aug_invalid_config",
                "test_rope_aug_rejects_non_numeric_config",
                "test_mixed_grid_rejects_non_2d",
                "test_rope_rejects_non_2d",
                "test_mrope_attention_pool_layout",
            ),
            absent={
                TORCH: (
                    "test_rotary_fx",
                    "test_rotary_init_after_to_empty",
                    "test_rope_frequency_buffers_with_low_default_dtype",
                    "test_rope_aug_dynamic_fx",
                    "test_rope_aug_autocast",
                    "test_eva_rope_fx",
                ),
                CACHES: (
                    "test_rope_aug_eval_initialization_and_caches",
                    "test_rope_cached_aug_reuses_bands",
                    "test_rope_cached_aug_enable_and_refresh",
                    "test_mixed_grid_storage",
                ),
                MODELS: (
                    "test_naflex_rope_aug_configuration",
                    "test_eva_rope_aug_configuration",
                    "test_eva_mrope_resize",
                    "test_model_rope_layout",
                    "test_model_mixed_rejects_half_layout",
                ),
                "x is [B, T, N, D]; there is no form for channels first": ("test_rotary_module_forward_nchw",),
                "the arrays of a scheme are those of one layer": ("test_mixed_rope_forward_per_block",),
                "coordinates are float32 in every dtype": (
                    "test_rope_aug_output_dtype",
                    "test_dinov3_coords_rounding",
                ),
                "there is one function that augments, and its settings are Python numbers": (
                    "test_rope_aug_invalid_functional_config",
                    "test_rope_aug_accepts_tensor_scalars",
                ),
                "both layouts are there for every rotation": ("test_rope_factory_rejects_unsupported_layout",),
            },
        ),
        File(
            path="tests/test_models.py",
            here=(),
            absent={
                "resized tables are compared with torch's in tests/golden": (
                    "test_naflexvit_direct_grid_sample_parity",
                    "test_naflexvit_direct_grid_sample_fullgraph",
                    "test_naflexvit_direct_grid_sample_export",
                )
            },
        ),
    ),
    notes=(
        "timm's tests have no numbers: they compare with formulas, which are here in float64. timm allows 4e-4 for its "
        "sines and cosines; ours are within 1e-6 of float64, most of it the rounding of fractional positions.",
        "timm refuses infinite and boolean strengths of the augmentation. Ours took an infinite one, which makes NaN, "
        "and True for 1; since these tests were written it refuses them too.",
        "timm's frequencies in pixels rise to pi times half the resolution for coordinates from -1 to 1. Ours may turn "
        "by at most pi for a step of 1 where positions are fractional, so coordinates are in pixels there, and "
        "frequencies by as much lower.",
        "timm's resampling of tables (`resample_abs_pos_embed`, `pos_embed_rel.py`) and its `build_sincos2d_pos_embed` "
        "have no tests.",
    ),
)
SHAPES = [(8, 8), (5, 9), (3, 4, 5)]


def axial(shape, *, base=100.0, layout="interleaved", count=8, **settings):
    """timm's build_rotary_pos_embed with in_pixels=False: the same frequencies along each axis, as many."""
    axes = pe.Axes.blocks(axes=len(shape), count=count)
    return pe.RoPE(dim=2 * count * len(shape), layout=layout, base=base, axes=axes, fractional=True, **settings)


def angles(positions, frequencies):
    """float64 `[T, axes * bands]`: of the first axis, then of the second."""
    return (np.asarray(positions, np.float64)[..., None] * frequencies).reshape(*np.shape(positions)[:-1], -1)


def bands(count, base):
    return base ** (-np.arange(count) / count)


def grid(shape, *, reference=None, offset=0.0, xy=False):
    """timm's coordinates: an offset, a scale to the shape that was trained, and the column's first if xy."""
    at = np.indices(shape).reshape(len(shape), -1).T + offset
    at = at if reference is None else at / np.array(shape) * np.array(reference)
    if xy:
        at[:, :2] = at[:, 1::-1]
    return at.astype(np.float32) if offset or reference else at.astype(np.int32)


def turned(x, angle, layout):
    """float64, by the formula; the angle is of each pair."""
    x, cos, sin = np.asarray(x, np.float64), np.cos(angle)[..., None, :], np.sin(angle)[..., None, :]
    a, b = (x[..., ::2], x[..., 1::2]) if layout == "interleaved" else np.split(x, 2, axis=-1)
    pair = [a * cos - b * sin, b * cos + a * sin]
    return np.stack(pair, axis=-1).reshape(x.shape) if layout == "interleaved" else np.concatenate(pair, axis=-1)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("reference", "offset", "xy"), [(False, 0.0, False), (True, 0.5, True), (True, 0.0, False)])
def test_build_fourier_pos_embed_matches_legacy(shape, reference, offset, xy):
    """Sines and cosines of a grid are those that `cos_sin` gives."""
    at = grid(shape, reference=[2 * size for size in shape] if reference else None, offset=offset, xy=xy)
    cos, sin = jax.jit(axial(shape).cos_sin)(at)
    angle = angles(at, bands(8, 100.0))
    np.testing.assert_allclose(cos, np.cos(angle), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angle), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_build_rotary_pos_embed_matches_legacy(shape, layout):
    at, scheme = grid(shape, offset=0.5), axial(shape, layout=layout)
    x = normal(len(at), 2, scheme.dim)
    np.testing.assert_allclose(call(scheme, x, at), turned(x, angles(at, bands(8, 100.0)), layout), rtol=0, atol=4e-6)


@pytest.mark.parametrize("shape", [(8, 8), (6, 9)])
def test_build_grid_centered_matches_dinov3_coords(shape):
    """normalize_coords="separate"; what else timm does to coordinates is arithmetic before a rotation takes them."""
    expected = 2.0 * (np.indices(shape).reshape(2, -1).T + 0.5) / np.array(shape) - 1.0
    np.testing.assert_allclose(vision.patch_centers(shape), expected, rtol=0, atol=6e-8)


def test_build_grid_xy_swaps_channels():
    rows_first = pe.positions.grid((4, 6))
    assert rows_first.shape == (24, 2)
    np.testing.assert_array_equal(rows_first[:, ::-1], grid((4, 6), xy=True))
    with pytest.raises(ValueError, match="shape is"):
        pe.positions.grid("unknown")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels(pe.Scaling):
    """timm's pixel_freq_bands, linear, of coordinates in halves of the resolution: a scaling of our own."""

    resolution: int

    def scale(self, frequencies, base):
        half, count = self.resolution / 2, len(frequencies)
        return tuple(Decimal(math.pi * value / half) for value in np.linspace(1.0, half, count))


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("kind", ["grid", "reference", "pixels", "centered"])
def test_rotary_module_matches_functional(kind, layout):
    """A module, the bound scheme, and `rotate` of its `cos_sin` are the same; and the formula."""
    shape, frequencies, settings = (5, 9), bands(8, 10_000.0), {}
    at = grid(shape)
    if kind == "reference":
        at = grid(shape, reference=(12, 12), offset=0.5, xy=True)
    elif kind == "centered":
        at = vision.patch_centers(shape)
    elif kind == "pixels":
        settings = {"scaling": Pixels(resolution=224)}
        frequencies = math.pi * np.linspace(1.0, 112.0, 8) / 112.0
        at = np.stack(np.meshgrid(*(np.linspace(-112, 112, n) for n in shape), indexing="ij"), -1).reshape(-1, 2)
        at = at.astype(np.float32)
    scheme = axial(shape, base=10_000.0, layout=layout, **settings)
    x = normal(45, 2, 32)
    out = call(scheme, x, at)
    cos, sin = jax.jit(scheme.cos_sin)(at)
    np.testing.assert_array_equal(out, jax.jit(lambda *a: pe.rotate(*a, layout=layout))(x, cos, sin))
    np.testing.assert_array_equal(out, jax.jit(linen.Scheme(scheme).apply)({}, x, at))
    np.testing.assert_allclose(out, turned(x, angles(at, frequencies), layout), rtol=0, atol=1.5e-5)


def padded(shapes, length):
    """The coordinates of pictures of several sizes: `[B, length, 2]`, 0 after their ends."""
    return np.stack([np.pad(grid(shape), [(0, length - math.prod(shape)), (0, 0)]) for shape in shapes])


def test_rotary_cat_get_batch_embeds_matches_get_embed():
    """Pictures of several sizes in one batch turn as each alone; timm's padding is 0, ours stays as it is."""
    shapes, scheme = [(8, 8), (5, 9), (9, 5), (8, 8)], axial((1, 1))
    x = normal(4, 70, 2, 32)
    out = call(scheme, x, padded(shapes, 70))
    for row, shape in enumerate(shapes):
        tokens = math.prod(shape)
        alone = call(scheme, x[row, :tokens], grid(shape))
        np.testing.assert_array_equal(out[row, :tokens], alone)
        np.testing.assert_array_equal(out[row, tokens:], x[row, tokens:])


DINO = {"base": 100.0, "count": 16}  # the periods of 64 channels; positions are 2 pi times the coordinates


def assert_dinov3(coordinates, layout, **settings):
    at = (2 * math.pi * np.asarray(coordinates)).astype(np.float32)
    scheme = axial((1, 1), layout=layout, **(DINO | settings))
    x = normal(len(at), 2, 64)
    frequencies = 1.0 / (settings["scaling"].factor if settings else 1.0) * bands(16, scheme.base)
    np.testing.assert_allclose(call(scheme, x, at), turned(x, angles(at, frequencies), layout), rtol=0, atol=4e-6)
    return scheme


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
def test_dinov3_module(shape, layout):
    scheme = assert_dinov3(vision.patch_centers(shape), layout)
    periods = 100.0 ** (2 * np.arange(16) / 32)
    np.testing.assert_allclose(1 / np.array(scheme.frequencies(), np.float64), np.tile(periods, 2), rtol=1e-14)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("xy", [False, True])
def test_dinov3_reference_and_cache_dtype(xy, layout):
    """normalize_coords="min" and an offset of 0.25: other coordinates, the same rotation."""
    at = 2.0 * (np.indices((5, 9)).reshape(2, -1).T + 0.75) / 5 - 1.0
    assert_dinov3(at[:, ::-1] if xy else at, layout)


def test_dinov3_temperature_none():
    """Periods from 0.5 to 10: a base with that ratio over one frequency fewer, and all divided by the shortest."""
    shortest, longest, count = 0.5, 10.0, 16
    base = (longest / shortest) ** (count / (count - 1))
    scheme = assert_dinov3(vision.patch_centers((8, 8)), "half", base=base, scaling=pe.Linear(factor=shortest))
    periods = shortest * (longest / shortest) ** np.linspace(0, 1, count)
    np.testing.assert_allclose(1 / np.array(scheme.frequencies(), np.float64)[:count], periods, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rotary_freqs_stay_fp32_after_cast(dtype):
    """Angles do not know the dtype of x: the output is the float32 one, rounded once."""
    x, at, scheme = jnp.asarray(normal(256, 1, 32)).astype(dtype), grid((16, 16)), axial((1, 1))
    out = call(scheme, x, at)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, call(scheme, x.astype(jnp.float32), at).astype(dtype))


def mixed(heads=2):
    scheme = pe.RoPEMixed(dim=32, layout="interleaved", key_value_heads=heads)
    return scheme, pe.init(scheme, jax.random.key(0))


def test_mixed_rope_low_precision_cast():
    """Frequencies in bfloat16 turn as the same numbers in float32; positions stay integers."""
    scheme, params = mixed()
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    x, at = normal(45, 2, 32), grid((5, 9))
    turn = jax.jit(lambda params: scheme.bind(params)(x, at))
    out = turn(low)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, turn(jax.tree.map(lambda x: x.astype(jnp.float32), low)))


@pytest.mark.parametrize("xy", [False, True])
@pytest.mark.parametrize("shape", [(5, 9), (3, 513)])
def test_mixed_rope_float32_autocast_and_gradients(shape, xy):
    """Values and the gradient of the frequencies, against float64; of each head its own."""
    scheme, params = mixed()
    at = grid(shape, xy=xy)
    x, weights = normal(len(at), 2, 32), normal(len(at), 2, 32)[::-1] / len(at)

    @jax.jit
    def values(params):
        out, pull = jax.vjp(lambda params: scheme.bind(params)(x, at), params)
        return out, pull(weights)[0]["frequencies"]

    out, gradient = values(params)
    frequencies = np.asarray(params["frequencies"], np.float64)
    angle = np.einsum("ta,naf->tnf", at, frequencies)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, v, w = (np.asarray(y, np.float64)[..., i::2] for y in (x, weights) for i in (0, 1))
    expected = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    along = v * (-a * sin - b * cos) + w * (-b * sin + a * cos)
    expected = np.einsum("tnf,ta->naf", along, at)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize(("dim", "sections"), [(64, (8, 12, 12)), (72, (12, 12, 12)), (80, (4, 20, 2))])
def test_mrope_reference_precision_and_meta_init(dim, sections):
    """Every third frequency is the row's, and the next the column's, 513 of them; the sections of 80 are no sum."""
    rows = set(range(1, min(3 * sections[1], dim // 2), 3))
    columns = set(range(2, min(3 * sections[2], dim // 2), 3))
    axis = tuple(1 if i in rows else 2 if i in columns else 0 for i in range(dim // 2))
    axes = pe.Axes(axis=axis, index=tuple(range(dim // 2)), count=dim // 2)
    if sum(sections) == dim // 2:
        assert axes == pe.Axes.interleaved(sections)
    at = np.concatenate([np.zeros((3 * 513, 1), np.int32), grid((3, 513))], axis=1)
    cos, sin = jax.jit(pe.RoPE(dim=dim, layout="half", axes=axes).cos_sin)(at)
    angle = at[:, np.array(axis)] * bands(dim // 2, 10_000.0)
    np.testing.assert_allclose(cos, np.cos(angle), rtol=0, atol=1.3e-7)
    np.testing.assert_allclose(sin, np.sin(angle), rtol=0, atol=1.3e-7)
    assert not np.asarray(sin)[:, np.array(axis) == 0].any()


def test_rope_batch_padding_dtype_and_gradients():
    """Learned frequencies in bfloat16 and a padded batch: finite gradients, to which padding adds nothing."""
    scheme, params = mixed()
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    x = normal(2, 48, 2, 32)

    @jax.jit
    def gradient(x):
        at = padded([(5, 9), (8, 4)], 48)
        return jax.grad(lambda params: scheme.bind(params)(x, at).mean())(low)["frequencies"]

    found = gradient(x)
    assert found.dtype == jnp.bfloat16 and np.isfinite(np.asarray(found, np.float32)).all()
    assert np.asarray(found).any()
    inside = np.arange(48) < np.array([[45], [32]])
    np.testing.assert_array_equal(found, gradient(x * inside[..., None, None]))


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_rotary_apply_output_dtype_and_rounding(dtype, layout):
    """One rounding, of the result; tables in half precision are refused, rather than rounded before."""
    x = jnp.asarray(normal(2, 45, 3, 32)).astype(dtype)
    at = grid((5, 9))
    angle = angles(at, bands(8, 100.0))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    weights = jnp.asarray(normal(2, 45, 3, 32)[:, ::-1]).astype(dtype)

    @jax.jit
    def values(x, weights):
        out, pull = jax.vjp(lambda x: pe.rotate(x, cos, sin, layout=layout), x)
        return out, pull(weights)[0]

    out, gradient = values(x, weights)
    assert out.dtype == gradient.dtype == dtype
    rounding = float(jnp.finfo(dtype).eps) / 2
    expected = turned(x, angle, layout)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=rounding, atol=1e-6)
    expected = turned(weights, -angle, layout)
    np.testing.assert_allclose(np.asarray(gradient, np.float64), expected, rtol=rounding, atol=1e-6)
    with pytest.raises(TypeError, match="cast up, not the tables down"):
        pe.rotate(x, jnp.asarray(cos).astype(jnp.bfloat16), jnp.asarray(sin).astype(jnp.bfloat16), layout=layout)


def test_rotary_apply_list_preserves_each_dtype():
    at, scheme = grid((3, 5)), axial((1, 1))
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert jax.eval_shape(lambda x: scheme.bind({})(x, at), jnp.ones((1, 15, 1, 32), dtype)).dtype == dtype


STRENGTHS = {"shift": 0.3, "jitter": 1.4, "rescale": 1.8}
AUGMENTATIONS = [{}, *({name: value} for name, value in STRENGTHS.items()), STRENGTHS, dict.fromkeys(STRENGTHS, 1)]


@pytest.mark.parametrize("strengths", AUGMENTATIONS)
def test_rope_aug_reference_and_rng(strengths):
    """Moved, stretched along each axis, and as a whole, in this order; the draws are arguments, and none are made."""
    at, draws = vision.patch_centers((5, 9)), jax.random.uniform(jax.random.key(0), (5,), minval=-1.0)
    own = {"shift": 0.0, "jitter": 1.0, "rescale": 1.0} | strengths
    u = np.asarray(draws, np.float64)
    expected = np.asarray(at, np.float64) + own["shift"] * u[:2]
    expected = expected * own["jitter"] ** u[2:4] * own["rescale"] ** u[4]
    out = vision.augmented(at, draws, **strengths)
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-7)
    if not strengths:
        np.testing.assert_array_equal(out, at)


def test_rope_aug_batch_sampling():
    """Two pictures of a size are not moved alike: draws of their own."""
    at, draws = vision.patch_centers((5, 9)), jax.random.uniform(jax.random.key(0), (3, 5), minval=-1.0)
    out = jax.vmap(lambda draws: vision.augmented(at, draws, **STRENGTHS))(draws)
    assert out.shape == (3, 45, 2) and (np.asarray(out[0]) != np.asarray(out[2])).all()
    np.testing.assert_allclose(out[1], vision.augmented(at, draws[1], **STRENGTHS), rtol=0, atol=1e-6)


INF, NAN = float("inf"), float("nan")
WRONG = [("shift", value) for value in (-0.1, INF, NAN)]
WRONG += [(name, value) for name in ("jitter", "rescale") for value in (0.5, 0.0, -1.0, INF, NAN)]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_rope_aug_invalid_config(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        vision.augmented(jnp.zeros((3, 2)), jnp.zeros(5), **{name: value})


@pytest.mark.parametrize("name", list(STRENGTHS))
@pytest.mark.parametrize("value", [False, True, "1.5"])
def test_rope_aug_rejects_non_numeric_config(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        vision.augmented(jnp.zeros((3, 2)), jnp.zeros(5), **{name: value})


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_mixed_grid_rejects_non_2d(shape):
    scheme, params = mixed()
    at = np.zeros((6, len(shape)), np.int32)
    with pytest.raises(AssertionError, match=r"positions is .*; it needs to be int32 positions \[T, 2\]"):
        scheme.bind(params)(jnp.ones((6, 2, 32)), at)


@pytest.mark.parametrize("kind", ["mrope", "dinov3"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4, 5)])
def test_rope_rejects_non_2d(shape, kind):
    """Of M-RoPE the positions have three numbers."""
    axes = pe.Axes.sections((4, 6, 6)) if kind == "mrope" else pe.Axes.blocks(axes=2, count=8)
    scheme = pe.RoPE(dim=32, layout="half", axes=axes)
    with pytest.raises(AssertionError, match=r"positions is .*; it needs to be int32 positions \[T, "):
        scheme.bind({})(jnp.ones((6, 2, 32)), np.zeros((6, len(shape)), np.int32))
    with pytest.raises(ValueError, match="shape is"):
        vision.patch_centers(shape)


def test_mrope_attention_pool_layout():
    """A token in front at position 0 is not turned, bit for bit, and attends as in the formula."""
    axes = pe.Axes.interleaved((4, 6, 6))
    scheme = pe.RoPE(dim=32, layout="half", axes=axes)
    at = np.concatenate([np.zeros((1, 3), np.int32), np.pad(grid((3, 5)), [(0, 0), (1, 0)])])
    q, k, v = normal(3, 16, 2, 32)
    turned_q, turned_k = call(scheme, q, at), call(scheme, k, at)
    np.testing.assert_array_equal(turned_q[0], q[0])
    out = pe.attend(turned_q[None], turned_k[None], v[None], implementation="reference")[0]
    angle = at[:, np.array(axes.axis)] * bands(16, 10_000.0)
    logits = np.einsum("tnd,snd->nts", turned(q, angle, "half"), turned(k, angle, "half")) * 32**-0.5
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    expected = np.einsum("nts,snd->tnd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(out, expected, rtol=0, atol=3e-6)
