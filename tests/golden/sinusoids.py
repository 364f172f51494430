"""Cases of sinusoids of several axes, of coordinates, and of random directions.

Cases of DETR's kin need not record their settings: the first two pixels of a column and of a row tell scale, offset and
base, and all other numbers are then checked.
"""

import math
import re

import facts
import jax.numpy as jnp
import numpy as np
from added import EXPONENTIAL
from case import Unsupported, check_close
from rotary import FEW, call

import posembed_jax as pe

BASE = 10_000.0
BOX = ("x", "y", "width", "height")


def check_grid(case):
    """Rows, then columns; with a class token, a row of zeros in front."""
    for name, (height, width, features), theirs in case.outputs(r"(?:cls_)?(\d+)x(\d+)x(\d+)"):
        scheme = pe.Sinusoidal(features=features, axes=2, base=BASE)  # of the function alone, without a model
        if case.config:
            scheme = facts.only(facts.places(case, pe.Sinusoidal)).scheme
        ours = np.asarray(call(scheme.bind({}), pe.positions.grid((height, width))))
        front = len(theirs) - len(ours)
        assert front == ("cls" in name)
        check_close(np.concatenate([np.zeros((front, features)), ours]), theirs, FEW)


def tidy(x, *, digits=4):
    """The nearest number of a few digits, or of a few parts of pi."""
    rounded = float(f"{x:.{digits}g}")
    by_pi = math.pi * round(x / math.pi)
    return by_pi if by_pi and abs(by_pi - x) < abs(rounded - x) and abs(by_pi - x) < 1e-4 * x else rounded


def angle_of(sin, cos):
    return math.atan2(sin, cos) % (2 * math.pi)


def check_masked(case):
    """DETR and its kin: counts of real pixels, normalised or not, down and then across."""
    given = case["in.mask"] > 0
    for name, _, theirs in case.outputs(r".*"):
        mask = np.ones_like(given) if name.endswith("_nomask") else given
        theirs = np.moveaxis(theirs, 1, -1)
        features = theirs.shape[-1] // 2
        scheme, settings = pixels_of(case, theirs.shape[-1]) if case.config else pixels_seen(theirs, mask)
        at = pe.vision.mask_coordinates(jnp.asarray(mask), **settings)
        ours = call(scheme.bind({}), at)
        angle = np.repeat(np.abs(np.float64(at)), features, axis=-1)  # far too large where nothing is real
        check_close(ours, theirs.reshape(ours.shape), EXPONENTIAL * angle + FEW)


def pixels_of(case, features):
    """The model's own sinusoid of so many channels, and what `mask_coordinates` needs."""
    found = [place for place in facts.places(case, pe.Sinusoidal) if "pixels" in place.about]
    place = facts.only([place for place in found if place.scheme.features == features])
    return place.scheme, place.about["pixels"]


def pixels_seen(theirs, mask):
    settings = settings_of_picture(theirs, mask)
    scheme = {"base": settings.pop("base"), "layout": "interleaved", "fractional": settings["normalize"]}
    return pe.Sinusoidal(features=theirs.shape[-1], axes=2, **scheme), settings


def settings_of_picture(theirs, mask):
    """From the first pixels, down and across, of an example which is not square."""
    counts = mask[:, :, 0].sum(1), mask[:, 0].sum(1)
    row = int(np.argmax(mask[:, 0, 0] & (counts[0] != counts[1])))
    (height, width), real, features = (int(n[row]) for n in counts), theirs[row], theirs.shape[-1] // 2
    first, second = (angle_of(real[i, 0, 0], real[i, 0, 1]) for i in (0, 1))
    across = [angle_of(real[0, j, features], real[0, j, features + 1]) for j in (0, 1)]
    step, step_across = (second - first) % (2 * math.pi), (across[1] - across[0]) % (2 * math.pi)
    slower = angle_of(real[1, 0, 2], real[1, 0, 3]) - angle_of(real[0, 0, 2], real[0, 0, 3])
    base = tidy((step / (slower % (2 * math.pi))) ** (features / 2))
    if abs(step - step_across) < 1e-5:  # one a pixel, whatever the size
        return {"normalize": False, "base": base}
    assert abs(step * height - step_across * width) < 1e-4
    offset = round(2 * (first / step - 1)) / 2
    return {"normalize": True, "scale": tidy(step * height), "offset": offset, "base": base}


def check_coordinates(case):
    """Of points (x, y) and boxes (x, y, width, height), between 0 and 1; sizes may follow as they are."""
    for name, _, theirs in case.outputs(r".*"):
        given = case[name.replace("out.", "in.")]
        place = place_of_coordinates(case, given.shape[-1], theirs.shape[-1])
        raw = given[..., [BOX.index(word) for word in place.about.get("followed_by", ())]]
        ours = call(place.scheme.bind({}), given[..., : place.scheme.axes])
        tolerance = EXPONENTIAL * 2 * math.pi * np.max(np.abs(given)) + FEW
        check_close(np.concatenate([ours, raw], axis=-1), theirs, tolerance)


def place_of_coordinates(case, axes, features):
    """The model's own; without settings Conditional DETR, DAB-DETR and LW-DETR: y, then x, then width and height."""
    if case.config:
        return facts.only(list(facts.places(case, pe.Sinusoidal)), "features", "axes", "order")
    order = (1, 0, *range(2, axes))
    settings = {"layout": "interleaved", "fractional": True, "scale": 2 * math.pi, "base": BASE}
    return facts.Place("", pe.Sinusoidal(features=features, axes=axes, order=order, **settings), {})


def check_fourier(case):
    """SAM: points of (x, y) in pixels of a picture of the shape that was run, or between 0 and 1."""
    found = re.search(r"input_shape=\((\d+), ?(\d+)\)", case.meta["ran"])
    if found is None:
        raise Unsupported("the case does not say of which shape its pictures are")
    size = np.array([int(found[2]), int(found[1])], np.float32)
    frequencies = case["par.positional_embedding"]
    axes, half = frequencies.shape
    bound = pe.FourierFeatures(features=2 * half, axes=axes).bind({"frequencies": jnp.asarray(frequencies)})
    for points, out in ((case["in.points"] / size, "out.out_shape"), (case["in.coords01"], "out.out01")):
        at = (2 * points - 1).astype(np.float32)
        turns = np.abs(at).reshape(-1, axes) @ np.abs(frequencies)
        ours = call(bound, at.reshape(-1, axes))
        tolerance = FEW + 2 * math.pi * 4 * np.spacing(np.float32(1)) * turns.max()  # rounded products of 2 pi and sums
        check_close(ours, case[out].reshape(ours.shape), tolerance)
