"""Positions of text, images and videos against the rule read token by token, and what batching must not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe

RULES = {
    "qwen2_vl": {"merge": 2},
    "unmerged": {"merge": 1},
    "paper": {"merge": 2, "after": "largest"},
    "qwen2_5_vl": {"merge": 2, "tokens_per_second": 4},
    "qwen2_5_vl, paper": {"merge": 2, "tokens_per_second": 2.5, "after": "largest"},
    "qwen3_vl": {"merge": 2, "split_frames": True},
    "ernie": {"merge": 2, "time_merge": 2},
}
IN_DEFAULT_RUNS = ("qwen2_5_vl", "qwen3_vl")
every_rule = pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=name, marks=[] if name in IN_DEFAULT_RUNS else [pytest.mark.slow])
        for name, rule in RULES.items()
    ],
)
KINDS = ("image_grids", "video_grids")


def reference(parts, merge, after="side", tokens_per_second=None, split_frames=False, time_merge=1):
    """The rule: each part is None, a text token, or (is it a video, (t, h, w), seconds). -> `[T, 3]`, next position."""
    found, start = [], 0
    for part in parts:
        video, (t, h, w), seconds = part or (False, (1, merge, merge), 1.0)
        t, h, w = t // (time_merge if video else 1), h // merge, w // merge
        scale = np.float32(tokens_per_second) * np.float32(seconds) if video and tokens_per_second else np.float32(1)
        times = [0] * t if video and split_frames else [int(np.float32(i) * scale) for i in range(t)]
        for i, time in enumerate(times):
            found += [(start + time, start + y, start + x) for y in range(h) for x in range(w)]
            if (video and split_frames) or i == t - 1:
                start += max(h, w, time + 1 if after == "largest" else 0)
    return np.array(found, np.int32).reshape(-1, 3), int(np.max(found, initial=-1)) + 1


def random_parts(rng, rule, images=2, videos=2, text=12):
    def grid(frames):
        return frames, *(rule["merge"] * rng.integers(1, 4, 2))

    seconds = rng.choice(np.float32([0.3, 0.5, 0.7, 1.0]), videos) if "tokens_per_second" in rule else [1.0] * videos
    frames = rng.integers(1, 4, videos) * rule.get("time_merge", 1) + rng.integers(0, rule.get("time_merge", 1), videos)
    parts = [(False, grid(1), 1.0) for _ in range(images)]
    parts += [(True, grid(int(t)), s) for t, s in zip(frames, seconds, strict=True)]
    parts += [None] * text
    return [parts[i] for i in rng.permutation(len(parts))]


def row_of(parts, rule, length=None, left=0):
    """The arrays of a row, padded to `length`, of which `left` on the left; what stands in padding is not text."""
    types = []
    for part in parts:
        video, (t, h, w), _ = part or (False, (1, rule["merge"], rule["merge"]), 1.0)
        tokens = t // (rule.get("time_merge", 1) if video else 1) * (h // rule["merge"]) * (w // rule["merge"])
        types += [0 if part is None else 1 + video] * tokens
    length = left + len(types) if length is None else length
    where = slice(left, left + len(types))
    row = {"token_types": np.full(length, 2, np.int32), "segment_ids": np.zeros(length, np.int32)}
    row["token_types"][where], row["segment_ids"][where] = types, 1
    for name, video in zip(KINDS, (False, True), strict=True):
        row[name] = np.array([p[1] for p in parts if p and p[0] == video], np.int32).reshape(-1, 3)
    if "tokens_per_second" in rule:
        row["seconds_per_grid"] = np.array([p[2] for p in parts if p and p[0]], np.float32)
    return row


def batch_of(seed, rule, rows=3, length=200):
    """Rows of different parts, padded on the left by different amounts, stacked: (parts of each row, arrays)."""
    rng = np.random.default_rng(seed)
    parts = [random_parts(rng, rule) for _ in range(rows)]
    made = [row_of(p, rule, length, left=int(rng.integers(0, 9))) for p in parts]
    return parts, {key: np.stack([row[key] for row in made]) for key in made[0]}


def check_rows(parts, rule, arrays, out):
    for b, one in enumerate(parts):
        want, following = reference(one, **rule)
        real = arrays["segment_ids"][b] > 0
        np.testing.assert_array_equal(out[0][b][real], want)
        np.testing.assert_array_equal(out[0][b][~real], 0)
        assert out[1][b] == following


@pytest.mark.slow
@every_rule
def test_several_images_and_videos_in_padded_rows(rule):
    """Per row and flat, eager, under jit and under vmap: integers, the same everywhere."""
    parts, arrays = batch_of(0, rule)
    arrays = {key: jnp.asarray(x) for key, x in arrays.items()}
    function = functools.partial(pe.mrope.positions, **rule)
    flat = {k: x.reshape(-1, *x.shape[2:]) if "grid" in k else x for k, x in arrays.items()}
    host = {key: np.asarray(x) for key, x in arrays.items()}
    eager = function(**arrays)
    assert [x.dtype for x in eager] == [jnp.int32, jnp.int32]
    assert [x.shape for x in eager] == [(3, 200, 3), (3,)]
    check_rows(parts, rule, host, [np.asarray(x) for x in eager])
    for out in (
        function(**host),
        function(**flat),
        jax.jit(lambda a: function(**a))(arrays),
        jax.jit(lambda a: function(**a))(flat),
        jax.jit(jax.vmap(lambda a: function(**a)))(arrays),
    ):
        jax.tree.map(np.testing.assert_array_equal, out, eager)


@pytest.mark.slow
@every_rule
def test_left_padding_changes_nothing(rule):
    parts = random_parts(np.random.default_rng(7), rule)
    row = row_of(parts, rule)
    del row["segment_ids"]
    alone, following = pe.mrope.positions(**row, **rule)
    np.testing.assert_array_equal(alone, reference(parts, **rule)[0])
    for left, right in ((5, 0), (0, 4), (3, 2)):
        padded = row_of(parts, rule, left + len(alone) + right, left)
        out, after_padding = pe.mrope.positions(**padded, **rule)
        np.testing.assert_array_equal(out[left : left + len(alone)], alone)
        assert after_padding == following


@pytest.mark.slow
@every_rule
@pytest.mark.parametrize("names", [(1, 2, 3), (9, 2, 5)], ids=["in_order", "any_order"])
def test_packed_is_separate(rule, names):
    """Documents in one row, with padding between them: each as it is alone, and decoding goes on with the last."""
    rng = np.random.default_rng(3)
    documents = [random_parts(rng, rule, text=5) for _ in names]
    rows = [row_of(parts, rule, left=i) for i, parts in enumerate(documents)]
    packed = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    packed["segment_ids"] = np.concatenate([name * row["segment_ids"] for name, row in zip(names, rows, strict=True)])
    out, following = jax.jit(lambda a: pe.mrope.positions(**a, **rule))(packed)
    for name, parts in zip(names, documents, strict=True):
        want, following_one = reference(parts, **rule)
        np.testing.assert_array_equal(out[packed["segment_ids"] == name], want)
    np.testing.assert_array_equal(out[packed["segment_ids"] == 0], 0)
    assert following == following_one
    jax.tree.map(np.testing.assert_array_equal, pe.mrope.positions(**packed, **rule), (out, following))


def test_an_interrupted_document_goes_on():
    ids = jnp.array([4, 4, 7, 7, 7, 7, 0, 4, 4, 7])
    types = jnp.array([0, 0, 1, 1, 1, 1, 0, 2, 0, 0])
    grids = {"image_grids": jnp.array([[1, 4, 4]]), "video_grids": jnp.array([[1, 2, 2]])}
    out, following = pe.mrope.positions(types, segment_ids=ids, merge=2, **grids)
    assert out[:, 1].tolist() == [0, 1, 0, 0, 1, 1, 0, 2, 3, 2]
    assert following == 3


def test_text_alone_is_numbered_as_ever():
    ids = jnp.array([[0, 0, 1, 1, 1], [1, 1, 3, 3, 3]])
    out, following = pe.mrope.positions(jnp.zeros((2, 5), jnp.int32), segment_ids=ids, merge=2)
    np.testing.assert_array_equal(out, jnp.stack([pe.positions.from_segment_ids(ids)] * 3, axis=-1))
    assert following.tolist() == [3, 3]


def test_rows_without_anything():
    types = jnp.zeros((2, 4), jnp.int32)
    nothing = {"image_grids": jnp.zeros((2, 0, 3), jnp.int32), "video_grids": jnp.zeros((2, 3, 3), jnp.int32)}
    out, following = pe.mrope.positions(types, segment_ids=types, merge=2, **nothing)
    assert not np.any(out) and following.tolist() == [0, 0]
    assert pe.mrope.positions(types[:, :0], merge=2)[0].shape == (2, 0, 3)


def test_rows_may_have_different_numbers_of_images():
    """Rows of zeros among the grids are no images, wherever they stand."""
    types = jnp.array([[1, 0, 1, 1], [0, 0, 0, 1]])
    grids = jnp.array([[[1, 2, 2], [0, 0, 0], [1, 2, 4]], [[0, 0, 0], [0, 0, 0], [1, 2, 2]]])
    out, following = pe.mrope.positions(types, image_grids=grids, merge=2)
    assert out[..., 2].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert out[..., 1].tolist() == [[0, 1, 2, 2], [0, 1, 2, 3]]
    assert following.tolist() == [4, 4]


def test_images_side_by_side_are_two():
    """There is no text between them to tell them apart, only their grids."""
    out, following = pe.mrope.positions(jnp.ones(8, jnp.int32), image_grids=jnp.array([[1, 4, 4]] * 2), merge=2)
    assert out.T.tolist() == [[0] * 4 + [2] * 4, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1] * 2 + [2, 3] * 2]
    assert following == 4


def test_a_long_video_overtakes_the_text_or_not():
    """What the two rules of what comes after differ in; decoding goes on after the largest in both."""
    types, grids = jnp.array([0, *[2] * 5, 0]), jnp.array([[5, 2, 2]])
    side, following_side = pe.mrope.positions(types, video_grids=grids, merge=2)
    largest, following_largest = pe.mrope.positions(types, video_grids=grids, merge=2, after="largest")
    assert side[-1].tolist() == [2, 2, 2] and following_side == 6
    assert largest[-1].tolist() == [6, 6, 6] and following_largest == 7


def test_time_is_rounded_in_float32_under_jit_too():
    """Where the product in float64 would be cut to one less: 5 * (4 * float32(0.7)) is 14 in float32."""
    grids, seconds = jnp.array([[41, 2, 2]]), jnp.float32([0.7])
    out, _ = jax.jit(
        lambda types: pe.mrope.positions(
            types, video_grids=grids, seconds_per_grid=seconds, tokens_per_second=4, merge=2
        )
    )(jnp.full(41, 2))
    wide = np.trunc(np.arange(41) * (4 * np.float64(np.float32(0.7)))).astype(np.int32)
    narrow = (np.arange(41, dtype=np.float32) * (np.float32(4) * np.float32(0.7))).astype(np.int32)
    assert out[5, 0] == 14 and np.any(wide != narrow)
    np.testing.assert_array_equal(out[:, 0], narrow)


@every_rule
def test_other_contents_do_not_trace_again(rule):
    traces = []

    @jax.jit
    def function(arrays):
        traces.append(1)
        return pe.mrope.positions(**arrays, **rule)

    for seed in range(1, 6):
        parts, arrays = batch_of(seed, rule)
        check_rows(parts, rule, arrays, [np.asarray(x) for x in function(arrays)])
    assert len(traces) == 1


def test_traced_tokens_without_a_grid_are_as_text():
    types = jnp.array([0, 1, 1, 1, 2, 2])
    out, following = jax.jit(lambda types, grids: pe.mrope.positions(types, image_grids=grids, merge=1))(
        types, jnp.array([[1, 1, 2]])
    )
    assert out[:, 2].tolist() == [0, 1, 2, 3, 4, 5] and following == 6
    assert out[:, 1].tolist() == [0, 1, 1, 3, 4, 5]


def test_decoding_goes_on_where_the_whole_sequence_would():
    """The positions of a prompt and of the tokens after it are those of the prompt with that text behind it."""
    types, grids = jnp.array([[0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 2, 2, 0, 0]]), jnp.array([[1, 4, 4]])
    arguments = {"image_grids": grids, "video_grids": jnp.array([[2, 2, 2]]), "merge": 2, "after": "largest"}
    whole, following = pe.mrope.positions(types, **arguments)
    prompt, start = pe.mrope.positions(types[:, :5], **arguments)
    decoded = pe.positions.arange(2, start)
    np.testing.assert_array_equal(whole[:, 5:], jnp.stack([decoded] * 3, axis=-1))
    np.testing.assert_array_equal(whole[:, :5], prompt)
    np.testing.assert_array_equal(following, start + 2)


def test_memory_grows_with_the_tokens_alone():
    """4,096 images of one token among 2^16: a token never meets an image that is not its own."""
    types = jax.ShapeDtypeStruct((2**16,), jnp.int32)
    grids = jax.ShapeDtypeStruct((4096, 3), jnp.int32)
    compiled = jax.jit(lambda t, g: pe.mrope.positions(t, image_grids=g, merge=1)).lower(types, grids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**16 * 4 * 16


OMNI = {"merge": 2, "after": "largest", "tokens_per_second": 3, "seconds_first": True, "sound": True}
# marks, a video of two frames of one token with three tokens of sound, marks, text
SOUNDING = jnp.array([[0, 0, 0, 2, 3, 3, 2, 3, 0, 0, 0], [0, 0, 0, 2, 2, 3, 3, 3, 0, 0, 0]])
VIDEOS = {"video_grids": jnp.array([[[2, 2, 2]], [[2, 2, 2]]]), "seconds_per_grid": jnp.array([[0.5], [2.5]])}


def test_sound_stands_within_its_video():
    """Both begin at one position; what comes after follows on what stands last, here the sound."""
    out, following = pe.mrope.positions(SOUNDING, **VIDEOS, **OMNI)
    assert out[..., 0].tolist() == [[0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8], [0, 1, 2, 3, 10, 3, 4, 5, 6, 7, 8]]
    assert out[..., 1].tolist() == [[0, 1, 2, 3, 3, 4, 3, 5, 6, 7, 8], [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8]]
    assert following.tolist() == [9, 11]
    paired, _ = pe.mrope.positions(SOUNDING, **VIDEOS, **OMNI, paired_marks=True)
    assert paired[0, :, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6]
    as_text, _ = pe.mrope.positions(SOUNDING, **VIDEOS, **OMNI | {"sound": False}, segment_ids=SOUNDING - 3)
    assert as_text.shape == out.shape


@pytest.mark.slow
def test_fractional_times():
    out, following = pe.mrope.positions(
        SOUNDING[1:, :5], **{k: x[1:] for k, x in VIDEOS.items()}, **OMNI, fractional=True
    )
    assert out.dtype == following.dtype == jnp.float32
    assert out[0, :, 0].tolist() == [0, 1, 2, 3, 10.5] and following.tolist() == [11.5]


FUNCTIONS = {
    "sound": lambda types, grids, ids: pe.mrope.positions(
        types, video_grids=grids, segment_ids=ids, **OMNI, paired_marks=True
    ),
    "fractional": lambda types, grids, ids: pe.mrope.positions(
        types, video_grids=grids, segment_ids=ids, **OMNI, fractional=True
    ),
    "xdrope": lambda types, grids, ids: pe.mrope.xdrope_positions(types, image_grids=grids, segment_ids=ids, merge=2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.slow
def test_packed_rows_of_other_rules_are_separate_rows(name):
    """Two documents in a row, padding between; eager, under jit and under vmap."""
    one = jnp.array([0, 1, 1, 1, 1, 1, 1, 0]) if name == "xdrope" else jnp.array([0, 0, 2, 3, 2, 3, 3, 0])
    grid = jnp.array([[1, 4, 4]] if name == "xdrope" else [[2, 2, 2]])
    alone = FUNCTIONS[name](one, grid, jnp.ones(8, jnp.int32))
    row = jnp.concatenate([one, jnp.zeros(3, jnp.int32), one])
    ids = jnp.repeat(jnp.array([1, 0, 2]), jnp.array([8, 3, 8]), total_repeat_length=19)
    packed, grids = jnp.stack([row, row]), jnp.stack([jnp.tile(grid, (2, 1))] * 2)
    arguments = packed, grids, jnp.stack([ids, ids])
    function = FUNCTIONS[name]
    for out, following in (
        function(*arguments),
        jax.jit(function)(*arguments),
        jax.jit(jax.vmap(function))(*arguments),
    ):
        for where in (slice(0, 8), slice(11, 19)):
            np.testing.assert_array_equal(out[:, where], jnp.stack([alone[0]] * 2))
        np.testing.assert_array_equal(out[:, 8:11], 0)
        np.testing.assert_array_equal(following, alone[1])


def test_images_that_are_drawn():
    """The last of the grids first; what comes after them stands still."""
    grids, start = jnp.array([[[1, 1, 2], [1, 2, 1]], [[0, 0, 0], [1, 1, 1]]]), jnp.array([5, 7])
    function = functools.partial(pe.mrope.drawn_positions, length=5)
    for out in (function(grids, start), jax.jit(function)(grids, start), jax.jit(jax.vmap(function))(grids, start)):
        assert out[0].T.tolist() == [[5, 5, 7, 7, 9], [5, 6, 7, 7, 9], [5, 5, 7, 8, 9]]
        assert out[1].T.tolist() == [[7, 8, 8, 8, 8]] * 3
