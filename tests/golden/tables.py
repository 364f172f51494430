"""Cases of learned tables: of axes, resized, in buckets, and of hashed characters.

Pixels of the cases are zero, so that a patch is the bias of its projection.
"""

import re

import facts
import jax.numpy as jnp
import numpy as np
from case import check_close, check_equal
from rotary import FEW

import posembed_jax as pe


def resizing(case):
    """How the model type's table is resized; transformers' usual way where its facts are not known."""
    try:
        found = [place.about["resize"] for place in facts.places(case, pe.LearnedPositions) if "resize" in place.about]
    except ValueError:
        found = []
    return found[0] if found else {"method": "bicubic", "antialias": False}


def one(case, pattern):
    """The parameter whose name matches, or None."""
    found = [case[name] for name in case.arrays if re.fullmatch(f"par.{pattern}", name)]
    assert len(found) <= 1, (pattern, list(case.arrays))
    return found[0] if found else None


def pair(size):
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


def check_paths(case):
    """MarkupLM: the tags on the way to a node and their subscripts, side by side, and one added to the other."""
    found = 0.0
    for place in facts.places(case, pe.AxialPositions):
        kind = place.name.removeprefix("xpath.")
        tables = {
            f"table_{i}": one(case, f"xpath_{kind[:3]}.*_sub_embeddings\\.{i}\\.weight")
            for i in range(place.scheme.position_axes)
        }
        found = found + place.scheme.bind({name: jnp.asarray(table) for name, table in tables.items()})(
            case[f"in.{kind}"]
        )
    x = np.float64(found) @ one(case, "xpath_unitseq2_inner.weight").T + one(case, "xpath_unitseq2_inner.bias")
    check_close(x, case["out.inner"], 20 * FEW * np.abs(x).max())


def check_axial(case):
    """Reformer: tokens are counted through a grid, and a number past its last has no row."""
    place = facts.only(facts.places(case, pe.AxialPositions))
    weights, shape = [case[f"par.weights.{axis}"] for axis in (0, 1)], place.scheme.shape
    tables = {f"table_{axis}": jnp.asarray(w.reshape(-1, w.shape[-1])) for axis, w in enumerate(weights)}
    bound = place.scheme.bind(tables)
    for given, out in (("in.position_ids", "out.out"), ("in.short", "out.out_short")):
        check_equal(bound(pe.positions.unravel(case[given], shape)), case[out])


def check_axes(case):
    """Rows and columns: side by side in pictures (DETR, Florence 2), or added to patches that say where they are."""
    if "in.bbox" in case.arrays:
        return check_boxes(case)
    tables = {f"table_{axis}": jnp.asarray(one(case, f"{name}.*weight")) for axis, name in enumerate(("row", "col"))}
    shape, features = tuple(len(table) for table in tables.values()), tables["table_0"].shape[1]
    detr = pe.AxialPositions(shape=shape, features=2 * features, join="concatenate", order=(1, 0))  # has no settings
    scheme = facts.only(list(facts.places(case, pe.AxialPositions)), "shape").scheme if case.config else detr
    if "in.flattened_patches" in case.arrays:
        patches = case["in.flattened_patches"]
        at, x = patches[..., :2].astype(np.int32), np.float64(patches[..., 2:])
        added = scheme.bind(tables)(at)
        projected = x @ np.float64(one(case, "patch_projection.weight")).T + one(case, "patch_projection.bias")
        size = np.abs(x) @ np.abs(np.float64(one(case, "patch_projection.weight"))).T
        return check_close(projected + added, case["out.out"], FEW * (1 + size))
    theirs = np.moveaxis(case["out.out"], 1, -1)
    ours = scheme.bind(tables)(pe.positions.grid(theirs.shape[1:3]))
    check_equal(np.broadcast_to(np.asarray(ours).reshape(1, *theirs.shape[1:]), theirs.shape), theirs)


def check_boxes(case):
    """Edges and sizes of boxes, added or side by side (LayoutLM), then to tokens; in UDOP, edges between 0 and 1."""
    left, top, right, bottom = np.moveaxis(case["in.bbox"], -1, 0)
    found = {place.name.removeprefix("encoder."): place for place in facts.places(case, pe.LearnedPositions)}
    read = [("x", left), ("y", top), ("x", right), ("y", bottom)]
    read += [("h", bottom - top), ("w", right - left)] if "boxes.h" in found else []
    parts, joined = [], found["boxes.x"].about["joined"]
    for side, at in read:
        place = found[f"boxes.{side}"]
        if scale := place.about.get("scale"):
            at = (np.clip(at, 0, 1) * np.float32(scale)).astype(np.int32)
        table = jnp.asarray(one(case, f"{side}_position_embeddings.weight"))
        parts.append(np.float64(place.scheme.bind({"table": table})(at)))
    x = np.concatenate(parts, axis=-1) if joined else sum(parts)
    if "in.input_ids" not in case.arrays:
        return check_close(x, case["out.out"], 4 * FEW)
    text, ids = found["text"], case["in.input_ids"]
    at = pe.positions.arange(ids.shape[1])[None]
    if text.about.get("position_ids") == "padding":
        at = pe.positions.from_mask(jnp.asarray(ids != text.scheme.index_offset - 1), padding_position=-1)
    rows = text.scheme.bind({"table": jnp.asarray(one(case, "position_embeddings.weight"))})(at)
    x = x + one(case, "word_embeddings.weight")[ids] + one(case, "token_type_embeddings.weight")[0] + np.float64(rows)
    check_normed(case, x)


def check_normed(case, x):
    """LayerNorm in float64."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + case.config.get("layer_norm_eps", 1e-12))
    ours = x * one(case, "LayerNorm.weight") + one(case, "LayerNorm.bias")
    check_close(ours, case["out.out"], 4 * FEW * max(1.0, np.max(np.abs(ours))))


def check_tiles(case):
    """Llama 3.2's vision: a table, and one for each arrangement of tiles, through a gate."""
    x, ids = case["in.x"], case["in.aspect_ratio_ids"]
    tiles, patches, features = x.shape[1:]
    own = one(case, "tile_embedding.weight").reshape(-1, tiles, patches, features)
    scheme = pe.TilePositions(arrangements=len(own), tiles=tiles, patches=patches, features=features)
    names = {"gate": one(case, "gate"), "table": one(case, "embedding"), "tiles": own}
    at = np.asarray(pe.positions.grid((tiles, patches)))
    at = np.stack([np.concatenate([np.full((len(at), 1), i, np.int32), at], axis=-1) for i in ids])
    ours = scheme.bind({name: jnp.asarray(array) for name, array in names.items()})(at)
    check_close(x + np.float64(ours).reshape(x.shape), case["out.out"], 2 * FEW * (1 + np.max(np.abs(x))))


def check_resized(case):
    """Tokens in front with their rows of the table, registers without, then patches with theirs."""
    table = one(case, "(?:position_embeddings?|position_embedding.weight)")
    bias = one(case, "patch_embeddings?\\..*bias")
    bias = np.zeros(case["out.out"].shape[-1], np.float32) if bias is None else bias
    if one(case, "norm.weight") is not None:  # Swin's
        centred = np.float64(bias) - np.mean(bias)
        bias = centred / np.sqrt(np.mean(centred**2) + case.config["layer_norm_eps"])
        bias = bias * one(case, "norm.weight") + one(case, "norm.bias")
    if "in.spatial_shapes" in case.arrays:
        return check_native_resolution(case, table, bias)
    front = [one(case, "(?:cls_token|class_embedding)"), one(case, "distillation_token")]
    front = [token.reshape(-1, bias.size) for token in front if token is not None]
    back = one(case, "detection_tokens")  # of YOLOS, whose rows are the last
    back = np.zeros((0, bias.size)) if back is None else back.reshape(-1, bias.size)
    front, patch = np.concatenate([np.zeros((0, bias.size)), *front]), pair(case.config["patch_size"])
    grid = tuple(n // p for n, p in zip(case["in.pixel_values"].shape[-2:], patch, strict=True))
    tokens = np.concatenate([front, np.broadcast_to(bias, (grid[0] * grid[1], bias.size)), back])
    if table is not None:
        old = tuple(n // p for n, p in zip(pair(case.config["image_size"]), patch, strict=True))
        table, how = jnp.asarray(table.reshape(-1, bias.size)), resizing(case)
        tokens = tokens + pe.resize_table(table, old, grid, before=len(front), after=len(back), shrink=True, **how)
    if (registers := one(case, "register_tokens")) is not None:
        tokens = np.concatenate([tokens[: len(front)], registers.reshape(-1, bias.size), tokens[len(front) :]])
    theirs, tolerance = case["out.out"][0], 10 * FEW * (1 + np.max(np.abs(tokens)))
    if len(theirs) < len(tokens):  # a masked autoencoder keeps some patches, in any order
        apart = np.abs(theirs[:, None] - tokens[None]).max(-1)
        assert len(theirs) == 1 + int((len(tokens) - 1) * (1 - case.config["mask_ratio"]))
        assert len(set(apart.argmin(1))) == len(theirs) and apart.argmin(1)[0] == 0
        return check_close(apart.min(1), np.zeros(len(theirs)), tolerance)
    check_close(np.broadcast_to(tokens, case["out.out"].shape), case["out.out"], tolerance)


def check_patches(case):
    """The patches of a picture or of a spectrogram, after tokens; a table of these alone."""
    (place,) = [found for found in facts.places(case, pe.LearnedPositions) if "shape" in found.about]
    rows = place.scheme.bind({"table": jnp.asarray(one(case, "(?:position_embeddings|pos_embed)")[0])})
    bias, front = one(case, "patch_embed.*bias"), [one(case, "cls_token"), one(case, "distillation_token")]
    patches = np.broadcast_to(bias, (np.prod(place.about["shape"]), bias.size))
    front = [token.reshape(1, -1) for token in front if token is not None]
    tokens = np.concatenate([*front, patches])
    assert place.about["prefix"] == len(front)
    check_equal(tokens + rows(pe.positions.arange(len(tokens))), case["out.out"][0])


def check_native_resolution(case, table, bias):
    """SigLIP 2: each image of its own size, in a padded batch."""
    side, length, how = round(len(table) ** 0.5), case["out.out"].shape[1], resizing(case)
    ours = pe.resize_to_shapes(
        jnp.asarray(table.reshape(side, side, -1)),
        case["in.spatial_shapes"],
        length=length,
        padding="first",
        method=how["method"],
        antialias=how["antialias"],
    )
    check_close(np.float64(ours) + bias, case["out.out"], 10 * FEW * (1 + np.max(np.abs(table))))


def check_buckets(case):
    """Idefics2, Phi-4: a patch reads the row of a square table that it falls in; padding reads the first."""
    table, mask = one(case, "position_embedding.weight"), case["in.patch_attention_mask"]
    side, expected, reciprocal = round(len(table) ** 0.5), [], resizing(case).get("reciprocal", True)
    for real in mask:
        height, width = int(real[:, 0].sum()), int(real[0].sum())
        rows = np.zeros(real.shape, np.int32)
        found = pe.vision.nearest_rows((height, width), side=side, reciprocal=reciprocal)
        rows[:height, :width] = np.asarray(found).reshape(height, width)
        expected.append(rows.reshape(-1))
    scheme = pe.LearnedPositions(length=side * side, features=table.shape[1])
    ours = scheme.bind({"table": jnp.asarray(table)})(np.stack(expected))
    check_close(np.float64(ours) + one(case, "patch_embedding.bias"), case["out.out"], 4 * FEW)


def check_hashed(case):
    """CANINE: each character has a row of each of several tables, by its hash; positions are a table like any other."""
    count = sum(name.startswith("par.HashBucketCodepointEmbedder_") for name in case.arrays)
    tables = [jnp.asarray(case[f"par.HashBucketCodepointEmbedder_{i}.weight"]) for i in range(count)]
    ids, positions = case["in.input_ids"], one(case, "char_position_embeddings.weight")
    scheme = facts.only(facts.places(case, pe.LearnedPositions)).scheme
    at = scheme.bind({"table": jnp.asarray(positions)})(pe.positions.arange(ids.shape[1]))
    x = np.float64(pe.embed_hashed(jnp.stack(tables), ids)) + np.float64(at)
    check_normed(case, x + one(case, "token_type_embeddings.weight")[0])
