"""Every key of every rotary model type, changed one at a time, is another model or an error that names it."""

import dataclasses
import functools
import json

import pytest

import posembed_jax as pe
from posembed_jax import hf
from posembed_jax.hf.facts import facts
from posembed_jax.hf.keys import is_rotary
from posembed_jax.hf.rotations import PAIRS_NEIGHBOURS

pytestmark = pytest.mark.usefixtures("facts_are_read_once")

KNOWN = facts()
TYPES = {**KNOWN["types"], **{name: known for name, known in KNOWN["composites"].items() if "modeling" in known}}
LONG = {"original_max_position_embeddings": 4096}
MSCALES = {"short_mscale": 1.1, "long_mscale": 1.3}
SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "beta_fast": 20.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.1, **LONG},
    "yarn, mscale": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.4, **LONG},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG},
    "longrope": {"factor": 4.0, **LONG},
    "longrope, amplitude": {"attention_factor": 1.2, **LONG},
    "longrope, amplitudes": {**MSCALES, **LONG},
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}
TOP = {  # what a file may say at its top, and to what it is changed
    "rope_theta": 77777.0,
    "partial_rotary_factor": 0.3,
    "partial_rotary_factors": [0.3],
    "rotary_dim": 12,
    "head_dim": 40,
    "global_head_dim": 24,
    "swa_head_dim": 24,
    "qk_rope_head_dim": 24,
    "qk_nope_head_dim": 40,
    "rotary_pct": 0.4,
    "rotary_emb_base": 333.0,
    "rotary_embedding_base": 55.0,
    "rope_local_base_freq": 777.0,
    "global_rope_theta": 99.0,
    "local_rope_theta": 88.0,
    "swa_rope_theta": 4444.0,
    "compress_rope_theta": 4321.0,
    "layer_rope_theta": [0, 1],
    "rope_scaling_layers": [0],
    "no_rope_layers": [0, 1],
    "no_rope_layer_interval": 3,
    "rope_interleave": False,
    "rope_interleaved": True,
    "rope_type": "linear",
    "use_rope": False,
    "mrope_section": [8, 12, 12],
    "original_max_position_embeddings": 48,
    "rope_scaling": {"rope_type": "linear", "factor": 3.3},
    "rope_parameters": {"rope_type": "linear", "factor": 3.3},
}
KEPT = ("mrope_section", "xdrope_section", "partial_rotary_factor")
# An error may name the settings that a key was turned into.
ALSO_NAMED = {
    "global_head_dim": "head_dim",
    "rotary_dim": "partial_rotary_factor",
    "qk_rope_head_dim": "partial_rotary_factor",
}
# As many channels turn as qk_rope_head_dim says, and nothing else is of head_dim.
SAYS_NOTHING = {("dots3_note_text", "head_dim")}
# transformers' own classes fail on their defaults
BROKEN = {"glm4v_text", "glm4v_moe_text", "glm_image_text", "esm"}


def entry(kind, rope, theta):
    found = {"rope_type": kind.split(",")[0], "rope_theta": theta, **SCALINGS[kind]}
    if found["rope_type"] == "longrope":
        count = rope.dim // 2 if rope.axes is None else rope.axes.count
        found |= {key: [x + 0.1 * i for i in range(count)] for key, x in (("short_factor", 1.0), ("long_factor", 2.0))}
    return found


def whole_file(name):
    """The default file, with everything written out and with what it may switch on."""
    file = {"model_type": name}
    if "switch" in TYPES[name]:
        file |= dict([TYPES[name]["switch"]])
    if "position_embeddings_type" in TYPES[name]["keys"]:
        file |= {"position_embeddings_type": "rotary"}
    return json.loads(json.dumps(hf.to_config(hf.from_config(file))))


def files(name):
    """Files of this type, of every scaling, as transformers 5 and 4 write it."""
    own = whole_file(name)
    yield own
    found = hf.from_config(own)
    ropes = [rope for rope in found.rotations.values() if isinstance(rope, pe.RoPE)]
    if not ropes or not isinstance(own.get("rope_parameters"), dict):
        return
    dicts, rest = own["rope_parameters"], {key: value for key, value in own.items() if key != "rope_parameters"}
    nested = any(isinstance(value, dict) or value is None for value in dicts.values())
    kept = {} if nested else {key: value for key, value in dicts.items() if key in KEPT}
    for kind in SCALINGS:
        told = kept | entry(kind, ropes[0], 34567.0)
        yield rest | {"rope_parameters": told}
        theta, kind_of_it = told.pop("rope_theta"), told.pop("rope_type")
        for key in ("rope_type", "type"):
            yield rest | {"rope_theta": theta, "rope_scaling": {key: kind_of_it, **told}}
        if nested:
            layers = {
                layer: None if before is None else entry(kind, found.rotations[layer] or ropes[0], 1e4 * (i + 2))
                for i, (layer, before) in enumerate(dicts.items())
            }
            for layer, before in dicts.items():
                layers[layer] = before and {k: v for k, v in before.items() if k in KEPT} | layers[layer]
            yield rest | {"rope_parameters": layers}


def other(key, value):
    """Another value of its kind; None where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value * (0.5 if "partial" in key else 8 if key in LONG else 1.5))
    if isinstance(value, str):
        return value + "x"
    numbers = isinstance(value, list) and all(isinstance(x, int | float) for x in value)
    if numbers and key.endswith("_section") and value[::-1] != value:
        return value[::-1]
    return [type(x)(x * 1.5) for x in value] if numbers else None


def changes(file):
    """(path, value) of each change of one key."""
    for key, value in file.items():
        if key in ("rope_parameters", "rope_scaling"):
            for inner, below in value.items() if isinstance(value, dict) else ():
                if isinstance(below, dict):
                    yield from (((key, inner, last), other(last, deep)) for last, deep in below.items())
                else:
                    yield (key, inner), other(inner, below)
        elif key in TOP or is_rotary(key):
            yield (key,), other(key, value)
    yield from (((key,), value) for key, value in TOP.items() if key not in file)


def changed(file, path, value):
    file = json.loads(json.dumps(file))
    place = file
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return file


@functools.cache
def turning(rope):
    """What a rotation does: not its settings alone, but what comes of them."""
    if not isinstance(rope, pe.RoPE):
        return rope
    by_length = isinstance(rope.scaling, pe.DynamicNTK | pe.LongRoPE)
    at = [dataclasses.replace(rope, length=length) for length in ((1, 10**9) if by_length else (None,))]
    plain = dataclasses.replace(rope, scaling=None, base=2.0)
    from_length = rope.scaling.original_length if by_length else None
    return plain, from_length, *[(rope.frequencies(), rope.amplitude()) for rope in at]


def does(found):
    rotations = {key: turning(rope) for key, rope in found.rotations.items()}
    towers = {key: does(tower) for key, tower in found.towers.items()}
    return rotations, towers, dataclasses.replace(found, rotations={}, towers={})


def is_so_anyway(key, value, layouts):
    """A file may say the layout that its model has."""
    said = "interleaved" if value == PAIRS_NEIGHBOURS.get(key) else "half"
    return key in PAIRS_NEIGHBOURS and layouts <= {said}


def kind_of(known):
    """What decides how a file is read."""
    labels = (known["modeling"][key] for key in ("init", "axial", "recompose"))
    return (*labels, "derived" in known, "layer_bases" in known, "labels_of_layers" in known)


def each_type():
    """One of each kind in the default run, and the others of its kind among the slow."""
    seen = set()
    for name, known in TYPES.items():
        marks = [pytest.mark.slow] if kind_of(known) in seen else []
        seen.add(kind_of(known))
        if name not in BROKEN:
            yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("model_type", list(each_type()))
def test_no_key_of_a_file_is_ignored(model_type):
    read = 0
    for file in files(model_type):
        try:
            found = hf.from_config(file)
            before, layouts = does(found), {rope.layout for rope in found.rotations.values() if rope is not None}
        except ValueError:
            continue  # a scaling, or a form, that this type does not have
        read += 1
        for path, value in changes(file):
            if value is None or is_so_anyway(path[-1], value, layouts) or (model_type, path[-1]) in SAYS_NOTHING:
                continue
            try:
                after = does(hf.from_config(changed(file, path, value)))
            except (ValueError, TypeError) as refusal:
                names = path[-1], ALSO_NAMED.get(path[-1], path[-1])
                assert any(name in str(refusal) for name in names), (file, path, value)
                continue
            assert after != before, (file, path, value)
    assert read
