"""xPos, FoPE and RoPE-Mixed against references of a few lines in float64, written from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe

B, T, S, N, K, D = 2, 5, 7, 6, 3, 10
call = jax.jit(lambda bound, x, positions, inverse=False: bound(x, positions, inverse=inverse), static_argnums=3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def turned(x, cos, sin, layout, start=0):
    """float64 `[..., T, N, D]`; cos and sin `[..., T, N or 1, pairs]`."""
    out, n = np.array(x, np.float64), cos.shape[-1]
    at = np.arange(n)
    a, b = (start + at, start + at + n) if layout == "half" else (start + 2 * at, start + 2 * at + 1)
    out[..., a], out[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., b] * cos + x[..., a] * sin
    return out


# xPos


@pytest.mark.parametrize("layout,dim,rotated", [("half", D, "first"), ("interleaved", 6, "last")])
@pytest.mark.parametrize("side", ["query", "key"])
def test_xpos(side, layout, dim, rotated):
    centre, positions = 2000, np.random.default_rng(1).integers(-14_000, 18_000, (B, T), np.int32)
    rope, x = pe.RoPE(dim=dim, layout=layout, rotated=rotated), normal(B, T, N, D)
    i = np.arange(dim // 2)
    zeta = (2 * i / dim + 0.4) / 1.4
    power = zeta ** ((positions - centre)[..., None] / 512.0 * (1 if side == "query" else -1))
    angle = np.float64(positions)[..., None] * 10_000.0 ** (-2 * i / dim)
    tables = ((power * f(angle))[..., None, :] for f in (np.cos, np.sin))
    wanted = turned(np.float64(x), *tables, layout, start=0 if rotated == "first" else D - dim)
    query = pe.XPos(rope=rope, centre=centre).bind({})
    bound = query if side == "query" else query.for_keys()
    assert bound.scheme.side == side and bound.scheme.for_keys() == query.scheme.for_keys()
    out = call(bound, x, positions)
    largest = np.maximum(1.0, np.abs(wanted).max(axis=(2, 3), keepdims=True))
    pairs = np.abs(np.asarray(out, np.float64) - wanted) / np.maximum(np.abs(wanted), 1e-30)
    assert np.median(pairs) < 3e-7 and np.all(np.abs(out - wanted) < 3e-6 * largest)
    np.testing.assert_allclose(call(bound, out, positions, True), x, rtol=0, atol=2e-6)


def test_xpos_powers_are_right_at_every_position_of_the_reach():
    """Two million: some fall where the power of two and its fraction are told apart in float32 only with care."""
    xpos = pe.XPos(rope=pe.RoPE(dim=128, layout="half", scaling=pe.Linear(factor=1e30)), centre=20_000)
    at = xpos.centre + np.arange(-xpos.reach, xpos.reach + 1, dtype=np.int32)
    out = np.asarray(call(xpos.bind({}), jnp.ones((len(at), 1, 128)), at), np.float64)[:, 0, :64]
    zeta = (np.arange(64) / 64 + 0.4) / 1.4
    assert out.size > 2_000_000
    np.testing.assert_allclose(out, zeta ** ((at[:, None] - 20_000) / 512.0), rtol=4e-7)


def test_xpos_decays_as_published():
    """Equal content in one pair without rotation: the score is zeta ** (distance / scale_base), wherever it is."""
    xpos = pe.XPos(rope=pe.RoPE(dim=4, layout="half", scaling=pe.Linear(factor=1e30)), centre=9000).bind({})
    x = jnp.zeros((2, 1, 4)).at[:, :, 0].set(1.0)
    for start in (0, 9000, 25_000):
        at = jnp.array([start + 768, start], jnp.int32)
        score = jnp.vdot(call(xpos, x, at)[0], call(xpos.for_keys(), x, at)[1])
        np.testing.assert_allclose(score, (0.4 / 1.4) ** 1.5, rtol=5e-7)


def test_xpos_at_the_ends_of_its_reach():
    """Products of a query and a key on any sides are floats; one step further is refused, or NaN when traced."""
    xpos, x = pe.XPos(rope=pe.RoPE(dim=4, layout="half"), centre=20_000), jnp.ones((3, 1, 4))
    ends = xpos.centre + np.array([-xpos.reach, 0, xpos.reach], np.int32)
    q, k = call(xpos.bind({}), x, ends), call(xpos.for_keys().bind({}), x, ends)
    scores = np.einsum("tnd,snd->nts", q, k)
    assert np.all(np.isfinite(scores)) and np.all(scores != 0) and np.abs(q).max() > 2.0**59
    outside = np.asarray(call(xpos.bind({}), x, ends + 1))
    assert np.isnan(outside[2]).all() and np.isfinite(outside[:2]).all()
    far = np.array([-(2**31), 0, 2**31 - 1], np.int32)
    assert np.isnan(call(xpos.bind({}), x, far)[jnp.array([0, 2])]).all()
    slow = pe.XPos(rope=pe.RoPE(dim=4, layout="half"), centre=0, scale_base=1e9).bind({})
    assert slow.scheme.reach == 2**31 - 1
    assert np.isnan(call(slow, x, far)[0]).all() and np.isfinite(call(slow, x, far)[1:]).all()


def test_xpos_caches_keys_that_fit_later_queries():
    """What the first code cannot: its centre is the middle of the sequence so far. A cache moves by `rerotate`."""
    rope, k, at = pe.RoPE(dim=4, layout="interleaved"), normal(S, K, 4), jnp.arange(S, dtype=jnp.int32)
    one, other = (pe.XPos(rope=rope, centre=centre).bind({}) for centre in (0, 3000))
    whole = one.for_keys()(k, at)
    np.testing.assert_array_equal(jnp.concatenate([one.for_keys()(k[i : i + 1], at[i : i + 1]) for i in at]), whole)
    moved = pe.rerotate(whole, at, old=one.for_keys(), new=other.for_keys())
    np.testing.assert_allclose(moved, other.for_keys()(k, at), rtol=2e-6, atol=1e-7)
    assert np.abs(moved - whole).max() > 0.1
