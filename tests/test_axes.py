"""RoPE of positions with several numbers: which number turns which pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import values

import posembed_jax as pe

AXES = {
    "sections": pe.Axes.sections((2, 3, 3)),
    "interleaved": pe.Axes.interleaved((4, 2, 2)),
    "blocks": pe.Axes.blocks(axes=2, count=4),
    "own": pe.Axes(axis=(1, 0, 1, 1, 0, 0, 2, 1), index=(0, 0, 5, 3, 1, 8, 8, 2), count=9),
}
B, T, N = 2, 5, 3


def rope_of(name, **settings):
    return pe.RoPE(dim=16, layout="interleaved", base=100.0, axes=AXES[name], **settings)


def positions_of(rope):
    numbers = np.random.default_rng(3).integers(-50, 5000, (B, T, rope.position_axes))
    return jnp.asarray(numbers, jnp.int32)


def test_the_usual_ones():
    assert AXES["sections"].axis == (0, 0, 1, 1, 1, 2, 2, 2)
    assert AXES["interleaved"].axis == (0, 1, 2, 0, 1, 2, 0, 0)
    assert AXES["blocks"].axis == (0, 0, 0, 0, 1, 1, 1, 1)
    assert AXES["blocks"].index == (0, 1, 2, 3, 0, 1, 2, 3)
    assert [AXES[name].count for name in ("sections", "interleaved", "blocks")] == [8, 8, 4]
    assert [rope_of(name).position_axes for name in AXES] == [3, 3, 2, 3]


@pytest.mark.parametrize("phase", ["exact", "float32"])
@pytest.mark.parametrize("name", AXES)
def test_every_pair_turns_by_its_axis_and_frequency(name, phase):
    rope = rope_of(name, phase=phase, scaling=pe.Linear(factor=4.0))
    axes, positions = rope.axes, positions_of(rope)
    cos, sin = jax.jit(rope.cos_sin)(positions)
    for pair, (axis, index) in enumerate(zip(axes.axis, axes.index, strict=True)):
        angle = np.float64(positions[..., axis]) * 100.0 ** (-index / axes.count) / 4.0
        tolerance = 2e-7 if phase == "exact" else 2e-7 + 2.0**-22 * np.abs(angle)
        assert np.all(np.abs(np.cos(angle) - cos[..., pair]) < tolerance)
        assert np.all(np.abs(np.sin(angle) - sin[..., pair]) < tolerance)
    x = values(B, T, N, 16)
    turned = rope.bind({})(x, positions)
    np.testing.assert_allclose(turned, pe.rotate(x, cos, sin, layout="interleaved"), rtol=0, atol=1e-6)
    np.testing.assert_allclose(rope.bind({})(turned, positions, inverse=True), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", AXES)
def test_scores_depend_on_the_differences_along_each_axis(name):
    bound, q, k = rope_of(name).bind({}), values(T, N, 16), values(T, N, 16, seed=8)
    positions = positions_of(bound.scheme)[0]

    def scores(query_shift, key_shift):
        a, b = bound(q, positions + query_shift), bound(k, positions + key_shift)
        return np.asarray(jnp.einsum("tnd,snd->nts", a, b, precision="highest"))

    still = jnp.zeros((1, bound.scheme.position_axes), jnp.int32)
    for axis in range(bound.scheme.position_axes):
        shift = still.at[0, axis].set(10**6 + axis)
        np.testing.assert_allclose(scores(shift, shift), scores(still, still), rtol=0, atol=3e-6)
        assert np.abs(scores(still, shift) - scores(still, still)).max() > 0.01


def test_text_alone_is_rope():
    """Where all numbers of a position are one, M-RoPE is RoPE."""
    at, x = pe.positions.arange(T, 1000), values(T, N, 16)
    plain = pe.RoPE(dim=16, layout="interleaved", base=100.0).bind({})(x, at)
    for name in ("sections", "interleaved"):
        bound = rope_of(name).bind({})
        np.testing.assert_array_equal(bound(x, jnp.broadcast_to(at[:, None], (T, 3))), plain)


@pytest.mark.parametrize(
    "scaling",
    [
        pe.DynamicNTK(factor=2.0, original_length=4),
        pe.LongRoPE(short_factor=(1.0,) * 9, long_factor=tuple(range(2, 11)), original_length=4),
    ],
    ids=["dynamic", "longrope"],
)
def test_a_length_in_the_graph(scaling):
    rope = rope_of("own", scaling=scaling)
    positions = positions_of(rope) % 100
    lengths = jnp.array([3, 11], jnp.int32)
    cos, sin = rope.cos_sin(positions, length=lengths)
    for row, length in enumerate(lengths.tolist()):
        for ours, there in zip((cos, sin), rope.cos_sin(positions[row], length=length), strict=True):
            np.testing.assert_allclose(ours[row], there, rtol=0, atol=5e-5)


def test_learned_frequencies_of_each_pair():
    rope = rope_of("blocks", learned=True)
    params = pe.init(rope, jax.random.key(0))
    assert params["frequencies"].shape == (8,)
    x, positions = values(B, T, N, 16), positions_of(rope) % 50
    plain = rope_of("blocks").bind({})(x, positions)
    np.testing.assert_allclose(rope.bind(params)(x, positions), plain, rtol=0, atol=2e-5)
    gradient = jax.grad(lambda p: jnp.sum(rope.bind(p)(x, positions) ** 3))(params)["frequencies"]
    assert np.all(np.abs(gradient) > 0)


def test_constant_positions_are_as_exact_as_arguments():
    """XLA folded the low half of constant positions, taken by index, to other numbers: 5e-5 of the tables."""
    rope = pe.RoPE(dim=8, layout="half", axes=pe.Axes.blocks(axes=2, count=2))
    for one in (jnp.arange(16), 1_000_003 * jnp.arange(16)):
        at = jnp.stack([one, ~one], axis=-1)
        angles = np.asarray(at)[:, list(rope.axes.axis)] * np.array(rope.frequencies(), np.float64)
        for found, want in zip(
            jax.jit(lambda at=at: rope.cos_sin(at))(), (np.cos(angles), np.sin(angles)), strict=True
        ):
            np.testing.assert_allclose(found, want, rtol=0, atol=1.2e-7)
