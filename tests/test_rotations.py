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


@pytest.mark.slow
def test_xpos_caches_keys_that_fit_later_queries():
    """What the first code cannot: its centre is the middle of the sequence so far. A cache moves by `rerotate`."""
    rope, k, at = pe.RoPE(dim=4, layout="interleaved"), normal(S, K, 4), jnp.arange(S, dtype=jnp.int32)
    one, other = (pe.XPos(rope=rope, centre=centre).bind({}) for centre in (0, 3000))
    whole = one.for_keys()(k, at)
    np.testing.assert_array_equal(jnp.concatenate([one.for_keys()(k[i : i + 1], at[i : i + 1]) for i in at]), whole)
    moved = pe.rerotate(whole, at, old=one.for_keys(), new=other.for_keys())
    np.testing.assert_allclose(moved, other.for_keys()(k, at), rtol=2e-6, atol=1e-7)
    assert np.abs(moved - whole).max() > 0.1


# FoPE


def coefficients(scheme, seed=3):
    """Near those of the plain rotation, as they begin, but all different."""
    params = pe.init(scheme, jax.random.key(0))
    return {name: x + 0.1 * normal(*x.shape, seed=seed + i) for i, (name, x) in enumerate(params.items())}


def fope_tables(params, positions, base, dim, kept, ones):
    """float64 cos and sin `[..., T, K, dim / 2]`, sum by sum."""
    shape = (*positions.shape, len(params["cos"]), dim // 2)
    cos, sin = np.ones(shape), np.full(shape, float(ones))
    for k in range(shape[-2]):
        for i in range(params["cos"].shape[2]):
            cos[..., k, i] = sin[..., k, i] = 0.0
            for f in range(kept):
                angle = np.float64(positions) * base ** (-2 * f / dim)
                cos[..., k, i] += np.cos(angle) * float(params["cos"][k, f, i])
                sin[..., k, i] += np.sin(angle) * float(params["sin"][k, f, i])
    return cos, sin


FOPES = {
    "each_head": (dict(layout="half", length=200, key_value_heads=K), 3),
    "shared": (dict(layout="interleaved", length=60, base=500.0), 3),
    "authors": (dict(layout="half", length=1000, key_value_heads=N, pairs=2, pad_sin_with_one=True), 4),
}


@pytest.mark.parametrize("name", FOPES)
def test_fope(name):
    dim, (settings, kept) = 12, FOPES[name]
    scheme, x = pe.FoPE(dim=dim, **settings), normal(B, T, N, dim)
    positions, params = np.random.default_rng(4).integers(0, 10**6, (B, T), np.int32), coefficients(scheme)
    assert len(scheme.frequencies()) == kept and params["sin"].shape[1:] == (kept, settings.get("pairs", kept))
    ones = settings.get("pad_sin_with_one", False)
    tables = fope_tables(params, positions, settings.get("base", 1e4), dim, kept, ones)
    cos, sin = (np.repeat(table, N // table.shape[-2], axis=-2) for table in tables)
    bound = scheme.bind(params)
    out = call(bound, x, positions)
    np.testing.assert_allclose(out, turned(np.float64(x), cos, sin, settings["layout"]), rtol=0, atol=4e-6)
    smallest = np.sqrt(np.min(cos**2 + sin**2))
    np.testing.assert_allclose(call(bound, out, positions, True), x, rtol=0, atol=2e-6 / smallest)


def test_fope_with_the_coefficients_of_rope_is_rope():
    """Of all frequencies that make a turn in the length; what does not turn is left as it is, bit for bit."""
    scheme, x, positions = pe.FoPE(dim=12, layout="half", length=1000), normal(T, N, 12), np.arange(T, dtype=np.int32)
    ones = jnp.eye(4)[None]
    out = call(scheme.bind({"cos": ones, "sin": ones}), x, positions)
    rope = call(pe.RoPE(dim=12, layout="half").bind({}), x, positions)
    turning = np.array([0, 1, 2, 3, 6, 7, 8, 9])
    np.testing.assert_allclose(out[..., turning], rope[..., turning], rtol=0, atol=5e-7)
    np.testing.assert_array_equal(np.delete(out, turning, axis=-1), np.delete(x, turning, axis=-1))


@pytest.mark.parametrize("heads,fans", [(None, 36 + 32), (8, (36 + 8) * 32)])
def test_fope_begins_as_the_authors_do(heads, fans):
    """Head dim 128 and length 1024: 36 frequencies, 32 pairs, ones at every second frequency, Xavier's deviation."""
    scheme = pe.FoPE(dim=128, layout="half", length=1024, key_value_heads=heads, pairs=32, gain=0.4)
    params = pe.init(scheme, jax.random.key(5))
    assert params["cos"].shape == params["sin"].shape == (heads or 1, 36, 32)
    ones = np.zeros((36, 32))
    ones[2 * np.arange(18), np.arange(18)] = 1.0
    for x in map(np.asarray, params.values()):
        np.testing.assert_allclose(np.std(x - ones), 0.4 * np.sqrt(2 / fans), rtol=0.06)
        assert abs(np.mean(x - ones)) < 0.1 * 0.4 * np.sqrt(2 / fans)
    assert np.abs(params["cos"] - params["sin"]).max() > 0.01


# RoPE-Mixed


@pytest.mark.slow
@pytest.mark.parametrize("axes,heads", [(1, K), (2, N), (2, None), (3, K)])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rope_mixed(layout, axes, heads):
    scheme = pe.RoPEMixed(dim=12, layout=layout, axes=axes, key_value_heads=heads)
    x, frequencies = normal(B, T, N, 12), normal(heads or 1, axes, 6, seed=2)
    positions = np.random.default_rng(6).integers(-(10**6), 10**6, (B, T, axes), np.int32)
    angle = np.einsum("bta,kan->btkn", np.float64(positions), np.float64(frequencies)).repeat(N // (heads or 1), axis=2)
    bound, at = scheme.bind({"frequencies": frequencies}), positions[..., 0] if axes == 1 else positions
    out = call(bound, x, at)
    np.testing.assert_allclose(out, turned(np.float64(x), np.cos(angle), np.sin(angle), layout), rtol=0, atol=2e-6)
    np.testing.assert_allclose(call(bound, out, at, True), x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(call(bound, x, at[0])[1], call(bound, x[1:], at[:1])[0], rtol=0, atol=1e-6)
    assert call(bound, x.astype(jnp.bfloat16), at).dtype == jnp.bfloat16


@pytest.mark.parametrize("axes", [2, 3])
def test_rope_mixed_scores_depend_on_the_differences_along_each_axis(axes):
    scheme = pe.RoPEMixed(dim=12, layout="half", axes=axes, key_value_heads=K)
    bound, q, k = scheme.bind(pe.init(scheme, jax.random.key(1))), normal(S, N, 12), normal(S, N, 12, seed=1)
    at = np.random.default_rng(7).integers(0, 50, (S, axes), np.int32)

    def scores(query_shift, key_shift):
        a, b = call(bound, q, at + query_shift), call(bound.for_keys(), k, at + key_shift)
        return np.einsum("tnd,snd->nts", a, b)

    for shift in np.diag([10**9 + a for a in range(axes)]).astype(np.int32):
        np.testing.assert_allclose(scores(shift, shift), scores(0 * shift, 0 * shift), rtol=0, atol=1e-5)
        assert np.abs(scores(0 * shift, shift) - scores(0 * shift, 0 * shift)).max() > 0.1


@pytest.mark.slow
def test_rope_mixed_under_transformations():
    """Positions of two numbers, which the table's rows do not have: vmap, and the derivative by each frequency."""
    scheme = pe.RoPEMixed(dim=8, layout="interleaved", key_value_heads=2)
    params, x = pe.init(scheme, jax.random.key(2)), normal(B, T, 4, 8)
    at = np.random.default_rng(8).integers(0, 30, (B, T, 2), np.int32)
    whole = scheme.bind(params)(x, at)
    mapped = jax.vmap(lambda x, at: scheme.bind(params)(x, at))(x, jnp.asarray(at))
    np.testing.assert_allclose(mapped, whole, rtol=0, atol=5e-7)

    def total(frequencies):
        return jnp.sum(scheme.bind({"frequencies": frequencies})(x, at) * normal(B, T, 4, 8, seed=9))

    gradient = jax.jit(jax.grad(total))(params["frequencies"])
    angle = np.einsum("bta,kan->btkn", np.float64(at), np.float64(params["frequencies"])).repeat(2, axis=2)
    weights = normal(B, T, 4, 8, seed=9).astype(np.float64)
    slope = turned(np.float64(x), -np.sin(angle), np.cos(angle), "interleaved") * weights
    by_angle = slope.reshape(B, T, 2, 2, 4, 2).sum(
        axis=(3, 5)
    )  # of a key head's two query heads, and a pair's channels
    np.testing.assert_allclose(gradient, np.einsum("bta,btkn->kan", at, by_angle), rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_rope_mixed_begins_along_orthogonal_directions(axes):
    """A rotation of RoPE's axes, another one for each head: `(cos a, sin a)` and `(-sin a, cos a)` with two."""
    heads, count = 5, 2
    scheme = pe.RoPEMixed(dim=2 * axes * count, layout="half", axes=axes, key_value_heads=heads, base=100.0)
    found = np.asarray(pe.init(scheme, jax.random.key(3))["frequencies"]).reshape(heads, axes, axes, count)
    magnitudes = 100.0 ** (-np.arange(count) / count)
    directions = found / magnitudes
    np.testing.assert_allclose(directions[..., 0], directions[..., 1], rtol=0, atol=1e-6)
    for direction in directions[..., 0]:
        np.testing.assert_allclose(direction.T @ direction, np.eye(axes), rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(direction), 1.0, rtol=1e-6)
    assert axes == 1 or len(np.unique(directions[:, 0, 0, 0].round(5))) == heads
    plain = pe.RoPE(dim=2 * count, layout="half", base=100.0).frequencies()
    np.testing.assert_allclose(magnitudes, [float(f) for f in plain], rtol=1e-12)
