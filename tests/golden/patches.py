"""Cases of what is added to the patches of pictures of several sizes, and to the tokens beside them."""

import facts
import jax.numpy as jnp
import numpy as np
import rotary
from case import check_close, check_equal
from rotary import FEW

import posembed_jax as pe
from posembed_jax import hf


def check(case):
    """Pictures one after the other, each (frames, height, width)."""
    tables = [place for place in facts.places(case, pe.LearnedPositions) if "shape" in place.about]
    place = facts.only(tables, "length", "features")
    table = jnp.asarray(case["par.table"]).reshape(-1, case["par.table"].shape[-1])
    assert table.shape == (place.scheme.length, place.scheme.features)
    class_token = class_tokens(case, table.shape[1])
    ours = [np.concatenate([class_token, picture(case, place.about, table, grid)]) for grid in case["in.grids"]]
    theirs, size = case["out.out"].reshape(-1, table.shape[1]), np.max(np.abs(table))
    check_close(np.concatenate(ours), theirs, 8 * FEW * size)


def check_places(case):
    """Patches that say where they stand, in the order of the model's axes; padding is below 0."""
    place = facts.only(facts.places(case, pe.AxialPositions), "shape", "features", "join", "order")
    tables = {f"table_{axis}": jnp.asarray(case[f"par.table_{axis}"]) for axis in range(len(place.scheme.shape))}
    at = case["in.position_ids"]
    ours = np.asarray(place.scheme.bind(tables)(np.maximum(at, 0)))
    real = (at >= 0).all(-1, keepdims=True) | (not place.about.get("zero_padding", False))
    check_close(np.where(real, ours, 0.0), case["out.out"], FEW * np.max(np.abs(ours)))


def check_turned(case):
    """Queries of the patches of pictures, turned where these stand; or of each kind of layers."""
    found = rotary.model(case)
    for layer, rope in found.rotations.items():
        name = f".{layer}" if layer else ""
        at = jnp.asarray(stand(case, found, f"in.grids{name}"))
        rotary.check_turned(rope, case[f"in.q{name}"], case[f"out.q_rot{name}"], at)
        if layer:
            check_equal([kind == layer for kind in found.layers], case[f"out.layers{name}"])


def stand(case, found, name="in.grids"):
    """Where the tokens of all pictures stand."""
    about = found.about["rotation"]
    return np.concatenate([hf.patch_positions(tuple(int(n) for n in grid), about) for grid in case[name]])


def check_standing(case):
    check_equal(stand(case, rotary.model(case)), case["out.position_ids"])


def class_tokens(case, features):
    """Of a class token that stands in front of each picture and has a position of its own."""
    places = [place for place in facts.places(case, pe.LearnedPositions) if place.name == "class_token"]
    assert len(places) == ("par.class_token" in case.arrays)
    tables = [{"table": jnp.asarray(case["par.class_token"]).reshape(1, -1)} for _ in places]
    found = [place.scheme.bind(own)(pe.positions.arange(1)) for place, own in zip(places, tables, strict=True)]
    return np.concatenate([np.zeros((0, features)), *found])


def picture(case, about, table, grid):
    frames, height, width = (int(n) for n in grid)
    rows = np.float64(hf.patch_table(table, (height, width), about))
    added = times(case, frames, table.shape[1])
    rows = np.concatenate([rows + frame for frame in added])
    without = np.zeros((about.get("tokens_in_front_without", 0), table.shape[1]))
    if about.get("windows", 1) > 1:
        assert height == width, "transformers itself mixes up windows that are not square"
        order, window = pe.vision.windows((frames, height, width), size=height // about["windows"])
        front, patches = rows[: about["prefix"]], rows[about["prefix"] :][np.asarray(order)]
        split = np.split(patches, np.flatnonzero(np.diff(np.asarray(window))) + 1)
        rows = np.concatenate([part for own in split for part in (front, own)])
    return np.concatenate([without, rows])


def times(case, frames, features):
    """What is added to each frame of a video; to a picture nothing, nor where the model has nothing for frames."""
    places = [place for place in facts.places(case, pe.Sinusoidal) if place.name == "frames"]
    if not places or frames == 1:
        return np.zeros((frames, 1, features))
    place = facts.only(places, "features", "layout")
    return np.float64(place.scheme.bind({})(pe.positions.arange(frames, place.about["first_of_video"])))[:, None]
