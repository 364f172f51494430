"""Qwen2-VL end to end: images and a video through the vision tower, among text, numbered and rotated on three axes."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from blocks import LLAMA, D, K
from decoders import SIZES
from layers import heads, layer_norm, linear, mlp
from models import Attention, Block, Model, Tokens, embed, logits, run
from torch_models import assert_close, assert_same, generate, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe
from posembed_jax import hf

pytestmark = pytest.mark.parity

B, T, NEW = 3, 26, 4
IMAGE, VIDEO = 59, 60
VISION_HEADS, VISION_DIM, PATCH = 2, 8, 3 * 2 * 2 * 2  # values of one patch: colours, frames, height, width
CONFIG = transformers.Qwen2VLConfig(
    text_config=SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
    vision_config={
        "depth": 2,
        "embed_dim": VISION_HEADS * VISION_DIM,
        "hidden_size": SIZES["hidden_size"],
        "num_heads": VISION_HEADS,
        "mlp_ratio": 2,
        "patch_size": 2,
    },
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)


def fused(w, x, rotate):
    q, k, v = (heads(y, VISION_DIM) for y in jnp.split(linear(w / "qkv", x), 3, axis=-1))
    return rotate(q), rotate(k), v


def quick_gelu(x):
    return x * jax.nn.sigmoid(1.702 * x)


VISION = Block(
    qkv=fused,
    norm=functools.partial(layer_norm, eps=1e-6),
    mlp=functools.partial(mlp, act=quick_gelu, up="fc1", down="fc2"),
    attention="attn",
    out="proj",
    before_attention="norm1",
    before_mlp="norm2",
)


@functools.cache
def ours():
    """The text and the vision model, from the configuration."""
    towers = hf.from_config(CONFIG.to_dict()).towers
    text, vision = towers["text_config"], towers["vision_config"]
    assert (text.position_ids, vision.position_ids) == ("multimodal", "grid")
    return (
        Model(
            block=LLAMA,
            attentions=(Attention(rotation=text.rotation, scale=text.softmax_scale),) * len(text.layers),
            layers="model.language_model.layers",
            embedding="model.language_model.embed_tokens",
            last_norm="model.language_model.norm",
        ),
        Model(
            block=VISION,
            attentions=(Attention(rotation=vision.rotation, scale=vision.softmax_scale, causal=False),)
            * len(vision.layers),
            layers="model.visual.blocks",
        ),
    )


@functools.cache
def load(dtype):
    theirs = tiny(transformers.Qwen2VLForConditionalGeneration, CONFIG)
    return theirs, weights(theirs)


# A character for each token of text, images and a video; rows are padded in front.
ROWS = "tttt" + 6 * "i" + 16 * "t", "tt" + 4 * "i" + "ttt" + 8 * "v" + 5 * "t", 9 * "i" + "ttt"
IMAGES, VIDEOS = [(1, 4, 6), (1, 4, 4), (1, 6, 6)], [(2, 4, 4)]  # frames, height, width in patches


class Batch(NamedTuple):
    ids: jax.Array  # [B, T]
    real: jax.Array  # [B, T]
    types: jax.Array  # [B, T]: 0 = text, 1 = image, 2 = video
    images: jax.Array  # patches [P, C]
    videos: jax.Array


def batch():
    rng = np.random.default_rng(2)
    kinds = np.array([list(row.rjust(T)) for row in ROWS])
    types = (kinds == "i") + 2 * (kinds == "v").astype(np.int32)
    ids = np.choose(types, [rng.integers(1, IMAGE, (B, T)), IMAGE, VIDEO]).astype(np.int32)
    images, videos = (rng.standard_normal((sum(map(math.prod, shapes)), PATCH)) for shapes in (IMAGES, VIDEOS))
    patches = (jnp.asarray(x, jnp.float32) for x in (images, videos))
    return Batch(jnp.asarray(ids), jnp.asarray(kinds != " "), jnp.asarray(types), *patches)


def told(given):
    """The same, as transformers takes it."""
    return {
        "input_ids": tensor(given.ids),
        "attention_mask": tensor(given.real),
        "mm_token_type_ids": tensor(given.types),
        "pixel_values": tensor(given.images),
        "image_grid_thw": tensor(IMAGES),
        "pixel_values_videos": tensor(given.videos),
        "video_grid_thw": tensor(VIDEOS),
    }


def numbered(given):
    """Positions `[B, T, 3]`, and those with which the rows go on."""
    return pe.mrope.positions(
        given.types,
        segment_ids=given.real.astype(jnp.int32),
        image_grids=jnp.array(IMAGES, jnp.int32),
        video_grids=jnp.array(VIDEOS, jnp.int32),
        **hf.multimodal(CONFIG.to_dict()),
    )


def see(w, patches, shapes):
    """What the layers of the vision tower put out, without a batch axis, and what is seen, as tokens `[S, F]`."""
    _, model = ours()
    kernel = w["model.visual.patch_embed.proj.weight"]
    x = jnp.einsum("pc,fc->pf", patches, kernel.reshape(len(kernel), -1), precision="highest")
    places = pe.positions.arange(len(patches))
    positions = jnp.concatenate([pe.vision.merged_grid(shape, merge=2)[:, 1:] for shape in shapes])
    frames = jnp.searchsorted(pe.vision.lengths(shapes), places, side="right").astype(jnp.int32)
    out, _ = run(model, w, x[None], Tokens(frames[None], places[None], positions[None]))
    out, w = jax.tree.map(lambda y: y[0], out), w / "model.visual.merger"
    merged = model.block.norm(w / "ln_q", out.hidden[-1]).reshape(len(x) // 4, -1)
    return out, mlp(w, merged, act=functools.partial(jax.nn.gelu, approximate=False), up="mlp.0", down="mlp.2")


def embedded(w, given):
    x = embed(ours()[0], w, given.ids)
    for kind, patches, shapes in ((1, given.images, IMAGES), (2, given.videos, VIDEOS)):
        x = x.at[given.types == kind].set(see(w, patches, shapes)[1])
    return x


def test_vision(dtype):
    theirs, w = load(dtype)
    given = batch()
    for patches, shapes in ((given.images, IMAGES), (given.videos, VIDEOS)):
        with recorded(theirs, ours()[1]) as calls:
            want = theirs.model.visual(tensor(patches), grid_thw=tensor(shapes)).pooler_output
        out, tokens = see(w, patches, shapes)
        assert_same(out, calls[0], ..., tolerance(dtype, 6))
        assert_close("tokens", tokens, want, tolerance(dtype, 6))


def test_positions():
    theirs, given = load("float32")[0], batch()
    positions, following = numbered(given)
    index, deltas = theirs.model.get_rope_index(
        *(tensor(x) for x in (given.ids, given.types, IMAGES, VIDEOS, given.real))
    )
    np.testing.assert_array_equal(positions, np.moveaxis(index.numpy(), 0, -1))
    np.testing.assert_array_equal(following - given.real.sum(axis=1), deltas.numpy()[:, 0])


@pytest.mark.parametrize("offset", [0, 5000])
def test_full_pass(offset, dtype):
    """Past max_position_embeddings, left padded; and the same with positions in the thousands."""
    theirs, w = load(dtype)
    text, given = ours()[0], batch()
    positions, real = numbered(given)[0] + offset, np.array(given.real)
    more = {"position_ids": tensor(jnp.moveaxis(positions, -1, 0))} if offset else {}
    with recorded(theirs, text) as calls:
        want = theirs(**told(given), **more, use_cache=False).logits.numpy()
    tokens = Tokens(given.real.astype(jnp.int32), pe.positions.from_mask(given.real), positions)
    got, _ = run(text, w, embedded(w, given), tokens)
    assert_same(got, calls[0], real, tolerance(dtype, positions))
    scores = np.asarray(logits(text, w, got.hidden[-1]))
    assert_close("logits", scores[real], want[real], tolerance(dtype, positions))


def test_cached_decoding(dtype):
    """Behind an image a token's positions are not its place in the cache."""
    theirs, w = load(dtype)
    text, given = ours()[0], batch()
    with recorded(theirs, text) as calls:
        done = generate(theirs, NEW, **told(given))
    ids = jnp.asarray(done.sequences.numpy(), jnp.int32)

    x, segment_ids = embedded(w, given), given.real.astype(jnp.int32)
    positions, following = numbered(given)
    caches = [pe.KVCache.empty(batch=B, capacity=T + NEW, heads=K, dim=D)] * len(text.attentions)
    for i in range(NEW):
        tokens = Tokens(segment_ids, caches[0].next_positions(segment_ids), positions)
        got, caches = run(text, w, x, tokens, caches)
        assert_same(got, calls[i], np.array(segment_ids) != 0, tolerance(dtype, T))
        assert_close("logits", logits(text, w, got.hidden[-1])[:, -1], done.logits[i], tolerance(dtype, T))
        x, segment_ids = embed(text, w, ids[:, T + i, None]), jnp.ones((B, 1), jnp.int32)
        positions = jnp.broadcast_to(pe.positions.arange(1, following + i)[..., None], (B, 1, 3))
    assert len(calls) == NEW
