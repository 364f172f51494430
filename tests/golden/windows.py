"""Biases of offsets within windows and images, and of boxes: which scheme it is, its parameters say."""

import math
import re

import facts
import jax.numpy as jnp
import numpy as np
from case import Unsupported, check_close, check_equal
from content import rounding
from rotary import FEW

import posembed_jax as pe


def check(case):
    if any(name.startswith("par.stages") for name in case.arrays):
        return check_levit(case, list(facts.places(case, pe.LeViTBias)))
    if any("continuous_position_bias_mlp" in name for name in case.arrays):
        return check_swin_v2(case)
    table = jnp.asarray(table_of(case).T)
    tokens = next(case[name].shape[-2] for name in ("out.bias", "in.x") if name in case.arrays)
    return check_swin(case, table, tokens) if _windows(table.shape[1], tokens) else check_beit(case, table)


def table_of(case):
    found = [case[name] for name in case.arrays if name.startswith("par.") and name.endswith("table")]
    if len(found) != 1:
        raise Unsupported(f"a bias of windows with the arrays {sorted(case.arrays)}")
    return found[0]


def _windows(offsets, tokens):
    """Every (height, width) of that many tokens and offsets: `offsets = (2 h - 1) (2 w - 1)`."""
    sizes = [(h, tokens // h) for h in range(1, tokens + 1) if tokens % h == 0]
    return [(h, w) for h, w in sizes if (2 * h - 1) * (2 * w - 1) == offsets]


def index_of(window):
    """The row of the table for each pair of tokens: the bias of a table that holds its own rows' numbers."""
    rows = math.prod(2 * size - 1 for size in window)
    at = pe.positions.grid(window)
    return pe.SwinBias(heads=1, window=window).bind({"table": jnp.arange(rows, dtype=jnp.float32)[None]})(at, at)[0]


def check_swin(case, table, tokens):
    """A window on its side has as many offsets: the stored index tells them apart."""
    windows = _windows(table.shape[1], tokens)
    if "out.index" in case.arrays:
        stored = case["out.index"].reshape(tokens, tokens)
        windows = [window for window in windows if np.array_equal(index_of(window), stored)]
    assert len(windows) == 1, (windows, table.shape, tokens)
    bias, at = pe.SwinBias(heads=len(table), window=windows[0]).bind({"table": table}), pe.positions.grid(windows[0])
    if "out.bias" in case.arrays:
        check_equal(jnp.broadcast_to(bias(at, at), case["out.bias"].shape), case["out.bias"])
    if "out.attn_out" in case.arrays:
        check_attention(case, bias, at)


def check_attention(case, bias, at):
    """The attention of one window, its projections done here in float64."""
    x, heads = np.float64(case["in.x"]), bias.scheme.heads
    q, k, v = (_projected(case, x, name).reshape(*x.shape[:2], heads, -1) for name in ("query", "key", "value"))
    out = pe.attend(*(jnp.asarray(y, jnp.float32) for y in (q, k, v)), bias=bias, query_positions=at)
    tolerance = rounding(x.shape[-1], x, case["par.query.weight"]) * np.max(np.abs(q)) * np.max(np.abs(v))
    check_close(out.reshape(x.shape), case["out.attn_out"], tolerance)


def _projected(case, x, name):
    bias = case.arrays.get(f"par.{name}.bias")
    return x @ np.float64(case[f"par.{name}.weight"]).T + (0 if bias is None else bias)


def check_swin_v2(case):
    """The pretrained window is where its coordinates say that it ends: they are 8 there, before the logarithm."""
    parts = {
        name.rpartition("continuous_position_bias_mlp.")[2]: case[name]
        for name in case.arrays
        if "continuous_position_bias_mlp" in name
    }
    theirs = case["out.bias"].reshape(-1, *case["out.bias"].shape[-2:])
    side = math.isqrt(theirs.shape[-1])
    assert side * side == theirs.shape[-1], theirs.shape
    pretrained = case.config.get("pretrained_window_sizes", [0])[0] if "out.coords" not in case.arrays else 0
    scheme = pe.SwinV2Bias(
        heads=len(theirs),
        window=(side, side),
        pretrained_window=(pretrained, pretrained) if pretrained else None,
        hidden=len(parts["0.bias"]),
    )
    params = {
        "hidden_kernel": jnp.asarray(parts["0.weight"].T)[None],
        "hidden_bias": jnp.asarray(parts["0.bias"])[None],
        "out_kernel": jnp.asarray(parts["2.weight"]),
    }
    at = pe.positions.grid((side, side))
    # The sigmoid's slope is at most 1 / 4, and 16 of it.
    tolerance = 4 * rounding(scheme.hidden, parts["0.weight"], parts["2.weight"]) + 16 * FEW
    check_close(scheme.bind(params)(at, at), theirs, tolerance)


def check_beit(case, table):
    """The image of the configuration, and others, to which the table is resized."""
    side = case.config["image_size"] // case.config["patch_size"]
    shape = (side, side)
    for name, groups, theirs in case.outputs(r"bias(?:_(\d+)x(\d+))?"):
        grid = tuple(groups) if name != "out.bias" else shape
        resized = (
            table
            if grid == shape
            else pe.resize_bias_table(table, shape, grid, method="bilinear", extra=3, shrink=True)
        )
        bias, at = pe.BEiTBias(heads=len(table), shape=grid).bind({"table": resized}), pe.positions.grid(grid)
        at = jnp.concatenate([jnp.full((1, 2), -1, jnp.int32), at])
        check_close(jnp.broadcast_to(bias(at, at), theirs.shape), theirs, 8 * FEW * float(jnp.max(jnp.abs(table))))


def check_levit(case, places):
    """Every stage, and what shrinks the picture between two: its queries stand at every other key."""
    assert {place.name for place in places} == {name.removeprefix("out.") for name in case.arrays if "out." in name}
    for place in places:
        bound = place.scheme.bind({"table": jnp.asarray(case[f"par.{place.name}"])})
        keys, stride = pe.positions.grid(place.scheme.shape), place.about.get("query_stride", 1)
        queries = stride * pe.positions.grid(tuple(-(-size // stride) for size in place.scheme.shape))
        check_equal(bound(queries, keys), case[f"out.{place.name}"])


def check_box_rpb(case):
    """SAM 3's bias of a query's box and a pixel: a small network of each axis."""
    params, layer = {}, "par.box_rpb_embed_{}.layer"
    for axis in "xy":
        one, two = layer.format(axis) + "1", layer.format(axis) + "2"
        params |= {
            f"hidden_kernel_{axis}": jnp.asarray(case[f"{one}.weight"].T[None]),
            f"hidden_bias_{axis}": jnp.asarray(case[f"{one}.bias"][None]),
            f"out_kernel_{axis}": jnp.asarray(case[f"{two}.weight"]),
            f"out_bias_{axis}": jnp.asarray(case[f"{two}.bias"]),
        }
    heads, hidden = case["par.box_rpb_embed_x.layer2.weight"].shape
    shape, boxes = shape_of_pixels(case), jnp.asarray(case["in.boxes"])
    bound, at = pe.BoxRPB(heads=heads, shape=shape, hidden=hidden).bind(params), pe.positions.grid(shape)
    keys = jnp.ones((len(boxes), len(at), 1, 1))
    ours = bound(boxes, keys, jnp.zeros((boxes.shape[1], 2), jnp.int32), at)
    check_close(ours, case["out.rpb"], 20 * FEW * hidden)


def shape_of_pixels(case):
    """The size of the image is in what was run, and nowhere else: `_get_rpb_matrix(boxes,(3,4))`."""
    found = re.search(r"\((\d+), ?(\d+)\)\)$", case.meta["ran"])
    if found is None:
        raise Unsupported(f"no size of the image in {case.meta['ran']!r}")
    return int(found[1]), int(found[2])
