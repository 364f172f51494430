"""Phases are right at every int32 position: cos and sin against 64-bit fixed point and float64 on the host."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax.schemes import phase

LOWEST, HIGHEST = -(2**31), 2**31 - 1
EDGES = np.array([LOWEST, LOWEST + 1, -(2**24) - 1, -1, 0, 1, 2**16, 2**24 + 1, 2**30, HIGHEST - 1, HIGHEST], np.int32)
BASES = (1e4, 5e5, 1e6, 1e8)

call = jax.jit(lambda bound, *args, **kwargs: bound(*args, **kwargs))
cos_sin = jax.jit(pe.RoPE.cos_sin, static_argnums=0)
turns_of_float32 = jax.jit(phase.turns_of_float32)


def exact_turns(frequency):
    """An mpmath frequency as an integer: turns per position in units of 2^-64, modulo one turn."""
    return int(mpmath.floor(frequency / (2 * mpmath.pi) * mpmath.mpf(2) ** 64 + 0.5)) % 2**64


def rope_turns(base, dim):
    with mpmath.workdps(60):
        found = [exact_turns(mpmath.mpf(base) ** (-mpmath.mpf(2 * i) / dim)) for i in range(dim // 2)]
    return np.array(found, np.uint64)


def angle(positions, turns):
    """float64 angles in [0, 2 pi) from int32 positions: the product wraps at 2^64, which is a whole turn."""
    wrapped = positions.astype(np.int64).astype(np.uint64)[:, None] * turns
    return wrapped.astype(np.float64) * (2 * np.pi / 2**64)


def largest_error(tables, angles):
    cos, sin = (np.asarray(table, np.float64) for table in tables)
    return max(np.max(np.abs(cos - np.cos(angles))), np.max(np.abs(sin - np.sin(angles))))


def random_positions(count, seed=0):
    inside = np.random.default_rng(seed).integers(LOWEST, HIGHEST, count - len(EDGES), np.int32, endpoint=True)
    return np.concatenate([EDGES, inside])


@pytest.mark.parametrize("base", BASES)
def test_ten_million_pairs_across_int32(base):
    """Four bases of 40,000 positions by 64 frequencies: 10,240,000 pairs in all."""
    positions = random_positions(40_000)
    tables = cos_sin(pe.RoPE(dim=128, base=base, layout="half"), positions)
    assert tables[0].shape == (40_000, 64) and len(BASES) * tables[0].size > 10_000_000
    assert largest_error(tables, angle(positions, rope_turns(base, 128))) <= 1.2e-7


def test_float32_phase_is_wrong_where_the_exact_one_is_right():
    """What the test above would say of the usual rounded angle."""
    positions = random_positions(100)
    usual = cos_sin(pe.RoPE(dim=128, layout="half", phase="float32"), positions)
    assert largest_error(usual, angle(positions, rope_turns(1e4, 128))) > 1


def test_sinusoids_share_the_exact_phase():
    positions = random_positions(1000)
    x = call(pe.Sinusoidal(features=128, layout="sin_cos", denominator="half").bind({}), positions)
    assert largest_error((x[:, 64:], x[:, :64]), angle(positions, rope_turns(1e4, 128))) <= 1.2e-7


def test_position_zero_turns_nothing():
    cos, sin = cos_sin(pe.RoPE(dim=64, layout="half"), np.zeros(3, np.int32))
    assert np.all(cos == 1) and np.all(sin == 0)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("shift", [1000, 131_071, 10**6, 10**8, HIGHEST - 63, LOWEST])
def test_scores_do_not_change_with_the_shift(layout, shift):
    """Products of unit vectors at 64 positions; the last shift ends, and one before begins, at an end of int32."""
    D = 48
    q, k = np.random.default_rng(1).normal(size=(2, 64, 1, D))
    q, k = (jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32) for x in (q, k))
    bound = pe.RoPE(dim=32, base=5e5, layout=layout).bind({})
    here = np.arange(64, dtype=np.int32)

    def scores(positions):
        turned = [np.asarray(call(bound, x, positions), np.float64)[:, 0] for x in (q, k)]
        return turned[0] @ turned[1].T

    there = (here.astype(np.int64) + shift).astype(np.int32)
    assert np.array_equal(there.astype(np.int64), here + shift)
    assert np.max(np.abs(scores(here) - scores(there))) <= 1e-6


FLOATS = np.concatenate(
    [
        [0.0, -0.0, 1.0, -1.0, 50.0, -50.0, 3.1415927, 1e-20, -1e-20, 1e-30, -1e-35, 1e-38, 1e6, -1e6, 1e20, 3e38],
        np.random.default_rng(2).normal(size=200) * 10.0 ** np.random.default_rng(3).integers(-12, 12, 200),
        2.0 ** np.arange(-126, 128),
    ]
).astype(np.float32)


def test_fixed_point_of_traced_frequencies():
    """Against integers: f = m 2^e exactly, and 2^64 m 2^e / (2 pi) modulo 2^64 to the last bit that is kept."""
    words = np.asarray(turns_of_float32(jnp.asarray(FLOATS))).astype(np.uint64)
    ours = [int(high) << 32 | int(low) for high, low in words.T]
    with mpmath.workdps(120):
        turn = int(mpmath.floor(mpmath.mpf(2) ** 300 / (2 * mpmath.pi)))
    for f, got in zip(FLOATS, ours, strict=True):
        numerator, denominator = float(abs(f)).as_integer_ratio()
        whole = (numerator * turn // denominator) >> (300 - 64)
        wanted = (-whole if f < 0 else whole) % 2**64
        # 96 bits of 1 / (2 pi) are multiplied, so the dropped tail may carry into the last bit.
        assert min((got - wanted) % 2**64, (wanted - got) % 2**64) <= 1, (f, hex(got), hex(wanted))


def test_learned_frequencies_are_exact_at_every_position():
    """Right for the float32 frequencies given, in cos and sin and in the gradient, which grows with the position."""
    frequencies = np.concatenate([FLOATS[np.abs(FLOATS) <= 50][:100], [1e-20, 0.0]]).astype(np.float32)
    with mpmath.workdps(60):
        turns = np.array([exact_turns(mpmath.mpf(float(f))) for f in frequencies], np.uint64)
    positions = random_positions(2000)
    rope = pe.RoPE(dim=2 * len(frequencies), layout="half", learned=True)
    tables = cos_sin(rope, positions, {"frequencies": jnp.asarray(frequencies)})
    assert largest_error(tables, angle(positions, turns)) <= 1.2e-7


def fractional_positions():
    rng = np.random.default_rng(4)
    spread = rng.uniform(-1, 1, 4000) * 10.0 ** rng.uniform(-12, 9.3, 4000)
    ends = [0.0, -0.0, 0.5, -0.5, 1 - 2.0**-24, -(2.0**-30), -(2.0**-24), -1e-9, 1e-9, 2.0**31 - 128, 128 - 2.0**31]
    return np.concatenate([ends, spread]).astype(np.float32)


@pytest.mark.parametrize("compiled", [True, False])
def test_fractional_positions(compiled):
    """As right as whole positions: just above and below integers, and to both ends of int32."""
    positions, dim = fractional_positions(), 32
    rope = pe.RoPE(dim=dim, layout="half", fractional=True)
    tables = (cos_sin if compiled else pe.RoPE.cos_sin)(rope, jnp.asarray(positions))
    whole = np.floor(positions.astype(np.float64))
    rest = (positions.astype(np.float64) - whole)[:, None] * 1e4 ** (-2 * np.arange(dim // 2) / dim)
    angles = angle(whole.astype(np.int64), rope_turns(1e4, dim)) + rest
    assert largest_error(tables, angles) <= 1.2e-7


@pytest.mark.parametrize("outside", [2.0**31, -(2.0**31), 1e30, np.inf, np.nan])
def test_fractional_positions_outside_int32_are_nan(outside):
    cos, sin = cos_sin(pe.RoPE(dim=4, layout="half", fractional=True), np.array([outside, 0.5], np.float32))
    assert np.all(np.isnan(cos[0]) & np.isnan(sin[0])) and np.all(np.isfinite(cos[1]))


def test_learned_frequencies_between_whole_positions():
    """With whole turns from one position to the next, which fixed point alone does not see; and their gradient."""
    frequencies, at = np.float32([4.0, -7.3, 1234.567, 3.1]), np.float32([0.5, -0.25, 1000.37, -5e5 + 0.5, 3e4 + 1 / 3])
    rope = pe.RoPE(dim=8, layout="half", learned=True, fractional=True)
    with mpmath.workdps(50):
        angles = [[mpmath.mpf(float(p)) * mpmath.mpf(float(f)) for f in frequencies] for p in at]
        want = [np.array([[float(f(a)) for a in row] for row in angles]) for f in (mpmath.cos, mpmath.sin)]
    for ours, theirs in zip(cos_sin(rope, at, {"frequencies": jnp.asarray(frequencies)}), want, strict=True):
        assert np.max(np.abs(ours - theirs)) <= 1.2e-7
    gradient = jax.grad(lambda f: jnp.sum(rope.cos_sin(jnp.float32([0.5]), {"frequencies": f})[1]))(frequencies)
    np.testing.assert_allclose(gradient, 0.5 * np.cos(0.5 * frequencies), atol=1e-6)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_frequency_that_is_no_number_is_seen(lost):
    """Fixed point would make a number of it, and a model that diverged would look healthy."""
    frequencies = jnp.array([1.0, lost, 2.0, 0.1])
    for at, settings in ((jnp.array([3]), {}), (jnp.array([0.5]), {"fractional": True})):
        cos, sin = pe.RoPE(dim=8, layout="half", learned=True, **settings).cos_sin(at, {"frequencies": frequencies})
        assert np.isnan(cos[0]).tolist() == np.isnan(sin[0]).tolist() == [False, True, False, False]
    mixed = pe.RoPEMixed(dim=8, layout="half").bind({"frequencies": jnp.stack([frequencies, frequencies[::-1]])[None]})
    out = mixed(jnp.ones((1, 1, 8)), jnp.array([[3, 1]]))[0, 0, :4]
    assert np.isnan(out).tolist() == [False, True, True, False]


def test_eager_is_jit():
    """Not to the bit: XLA contracts the compiled polynomial's products and sums."""
    rope, positions = pe.RoPE(dim=64, base=1e6, layout="half"), random_positions(500)
    for eager, compiled in zip(rope.cos_sin(positions), cos_sin(rope, positions), strict=True):
        assert np.max(np.abs(eager - compiled)) <= 1.2e-7


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("far", [0, 10**6, HIGHEST - 4])
def test_tables_never_see_the_activation_dtype(dtype, far):
    """A bfloat16 model turns by float32 tables: its output is the float32 output, rounded once, bit for bit."""
    bound, positions = pe.RoPE(dim=16, layout="half").bind({}), far + np.arange(4, dtype=np.int32)
    x = jax.random.normal(jax.random.key(0), (4, 3, 16), dtype)
    narrow, wide = call(bound, x, positions), call(bound, x.astype(jnp.float32), positions)
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(np.asarray(narrow, np.float32), np.asarray(wide.astype(dtype), np.float32))


def test_under_x64():
    """The same float32 tables; a float64 activation is rotated in float64 and stays so."""
    positions = random_positions(1000)
    rope = pe.RoPE(dim=64, base=5e5, layout="half")
    learned = {"frequencies": jnp.array(rope.frequencies(), jnp.float32)}
    usual = cos_sin(rope, positions)
    with jax.enable_x64(True):
        tables = cos_sin(rope, positions)
        assert tables[0].dtype == tables[1].dtype == jnp.float32
        assert largest_error(tables, angle(positions, rope_turns(5e5, 64))) <= 1.2e-7
        for wide, narrow in zip(tables, usual, strict=True):
            assert np.max(np.abs(wide - narrow)) <= 1.2e-7
        words = turns_of_float32(jnp.asarray(learned["frequencies"]))
        assert words.dtype == jnp.uint32
        x = jnp.ones((1000, 1, 64), jnp.float64)
        assert call(rope.bind({}), x, positions).dtype == jnp.float64
        sinusoids = call(pe.Sinusoidal(features=8).bind({}), positions)
        assert sinusoids.dtype == jnp.float32
    np.testing.assert_array_equal(words, turns_of_float32(learned["frequencies"]))
