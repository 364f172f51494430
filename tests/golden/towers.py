"""Whole towers of pictures and videos: each place's tokens and layers, from a checkpoint as `hf.load` reads it.

Which scheme stands where, how its table follows the picture and which tokens it is for, `hf.from_config` says.
"""

import dataclasses
import json
import math
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
from case import check_close
from content import rounding
from rotary import FEW
from safetensors.numpy import save_file

import posembed_jax as pe
from posembed_jax import hf

AXES = ("frame", "row", "column")


def check(case):
    """Every place of the tower has its arrays, and every tensor its place, or `hf.load` refuses."""
    found = loaded(case)
    positions, places = found.positions, {*found.positions.additive, *found.biases}
    assert places == {name.partition(".")[2] for name in case.arrays if name.split(".")[0] == "out"}
    for place, scheme in positions.additive.items():
        params, about, grid = found.additive[place], positions.about.get(place, {}), sizes(case, place)
        if isinstance(scheme, pe.TilePositions):
            added = of_tiles(scheme, params, case["in.aspect_ratio_ids"], grid)
        else:
            added = of_grid(params, about, grid)
        before, after = case[key("in", place)], case[key("out", place)]
        check_close(before + np.float64(added), after, 2 * FEW * np.max(np.abs(after)))
    for place, params in found.biases.items():  # of each layer, or of the layers of a place
        own = place if place in positions.biases else place.rpartition(".")[0]
        check_attention(case, place, positions.biases[own], params, positions.about.get(own, {}))


def loaded(case):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(case.config))
        tensors = {name.removeprefix("par."): x for name, x in case.arrays.items() if name.startswith("par.")}
        save_file(tensors, folder / "model.safetensors")
        return hf.load(folder)


def key(name, place):
    return f"{name}.{place}" if place else name


def sizes(case, place):
    return tuple(int(n) for n in case[key("in.grid", place)])


def of_grid(params, about, grid):
    """What is added to the tokens of a picture or video of these sizes, `[T, F]`."""
    every = AXES[-len(grid) :]
    axes = about.get("axes", AXES[-len(about["shape"]) :])
    own = {axis: size for axis, size in zip(every, grid, strict=True) if axis in axes}
    rows = np.asarray(hf.patch_table(jnp.asarray(params["table"]), tuple(own.values()), about))
    end = len(rows) - about.get("behind", 0)
    first, patches, last = np.split(rows, [end - math.prod(own.values()), end])
    features = rows.shape[1:]
    patches = np.broadcast_to(patches.reshape(*(own.get(axis, 1) for axis in every), *features), (*grid, *features))
    order = about.get("order", every)
    patches = np.moveaxis(patches, [every.index(axis) for axis in order], range(len(order))).reshape(-1, *features)
    without = np.zeros((about.get("tokens_in_front_without", 0), *features))
    return np.concatenate([without, first, patches, last])


def of_tiles(scheme, params, arrangement, grid):
    """What is added to the patches of the tiles of a picture, `[T, F]`."""
    tile, patch = np.moveaxis(np.asarray(pe.positions.grid(grid)), -1, 0)
    patch = patch if scheme.patches > 1 else 0 * patch
    at = np.stack([np.full_like(tile, arrangement), tile, patch], axis=-1)
    return scheme.bind({name: jnp.asarray(x) for name, x in params.items()})(at)


def check_attention(case, place, scheme, params, about):
    """On tokens of a picture; where they attend their neighbours, the dilation divides the positions of the bias."""
    query, keys, value = (jnp.asarray(case[key(f"in.{name}", place)]) for name in ("query", "key", "value"))
    grid, mask = sizes(case, place), None
    at = pe.positions.grid(grid)
    if "neighbours" in about:
        dilation = about["dilations"][int(place.rpartition(".")[2])]
        at, mask = at // dilation, pe.masks.neighbourhood(grid, about["neighbours"], dilation=dilation)
    bound = resized(scheme, params, about, grid) if "resize" in about else scheme.bind(params)
    ours = pe.attend(query, keys, value, bias=bound, mask=mask, query_positions=at, key_positions=at)
    features = query.shape[-1]
    check_close(ours, case[key("out", place)], 4 * rounding(features, query, keys) * np.max(np.abs(value)))


def resized(scheme, params, about, grid):
    """With the tables of each axis for a picture of these sizes."""
    tables = {}
    for axis, (old, new) in enumerate(zip(scheme.shape, grid, strict=True)):
        table = params[f"table_{axis}"][0]
        if old != new:
            table = pe.resize_table(table, (2 * old - 1,), (2 * new - 1,), shrink=True, **about["resize"])
        tables[f"table_{axis}"] = table[None]
    return dataclasses.replace(scheme, shape=grid).bind(tables)
