"""Frequencies of rotary model types, over random configurations, against those of transformers' own classes.

    python -m pytest tests/parity/test_rotary_configs.py -m parity

A file that transformers refuses, or that its class cannot run, has nothing to compare with. One that `from_config`
refuses while transformers reads it must have been refused by its message, not by chance: such a refusal is a
`ValueError`.
"""

import dataclasses
import importlib
import json
import logging
import warnings

import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax import hf
from posembed_jax.hf.facts import facts
from posembed_jax.hf.keys import top_names

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("facts_are_read_once")]

LEAVES = {name: known for name, known in facts()["types"].items() if known["modeling"]["rotary_class"]}
LONG = {"original_max_position_embeddings": 64}
SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, **LONG},
    "yarn, all": {"factor": 5.0, "beta_fast": 20.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.4, **LONG},
    "yarn, amplitude": {"factor": 4.0, "attention_factor": 1.3, "truncate": False, **LONG},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG},
    "longrope": {"factor": 4.0, **LONG},
    "proportional": {"partial_rotary_factor": 0.5},
}
SETTINGS = ({}, {"partial_rotary_factor": 0.5}, {"hidden_size": 256, "num_attention_heads": 4}, {"head_dim": 48})
BASES = "theta", "base_freq", "emb_base"
# What transformers makes frequencies of, and then fails on: they do not fit its heads.
CANNOT_RUN = (
    "the sections of rope_parameters",
    "but qk_rope_head_dim is",
    "need to turn: head_dim",
    "short_factor has",
    "it needs rope_theta, for which transformers has no default",  # or it reads no dict of layers that are not there
    "but an odd number of channels turn",  # which RoPE has not, where a scaling asks for the width
    "this model type needs rope_type 'default', or 'longrope' with",  # it reads amplitudes that only those have
)


def types_of_layers(known):
    return [key for key, value in known["config"].get("rope_parameters", {}).items() if isinstance(value, dict)]


def is_read_better(file, known):
    """What strict reading does otherwise, on purpose: transformers forgets these of dicts by layer type."""
    return bool(types_of_layers(known)) and any(f'"{key}"' in json.dumps(file) for key in ("type", "truncate"))


def variants(known):
    """Files of this type: every scaling, as transformers 5 and 4 write it, for all layers or for each type of them."""
    layers = types_of_layers(known)
    for kind, scaling in SCALINGS.items():
        entry = {"rope_type": kind.split(",")[0], **scaling}
        forms = {
            "rope_parameters": {"rope_parameters": {"rope_theta": 34567.0, **entry}},
            "rope_scaling": {"rope_theta": 54321.0, "rope_scaling": entry},
            "type": {"rope_theta": 54321.0, "rope_scaling": {"type": entry["rope_type"], **scaling}},
        }
        if layers:
            nested = {key: {"rope_theta": 1000.0 * (i + 2), **entry} for i, key in enumerate(layers)}
            forms["nested"] = {"rope_parameters": nested}
        for form, file in forms.items():
            for settings in SETTINGS:
                yield f"{kind}; {form}; {', '.join(settings)}", {**settings, **file}
    top = {key: 0.25 for key in ("partial_rotary_factor", "rotary_pct")}
    top |= {key: 23456.0 for key in {*top_names(known, "rope_theta"), *known["keys"]} if key.endswith(BASES)}
    for key, value in top.items():
        yield key, {key: value}
        yield from ((f"{key} {value} beside {form}", {key: value, **file}) for form, file in beside(layers))


def beside(layers):
    """The forms of rotary dicts: of all layers or of each type, with a base of their own or without."""
    for name in ("rope_parameters", "rope_scaling"):
        for kind in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}):
            for base in ({}, {"rope_theta": 34567.0}):
                yield f"{name} of all {kind} {base}", {name: kind | base}
                if layers:
                    nested = {
                        layer: kind | {key: value + i for key, value in base.items()} for i, layer in enumerate(layers)
                    }
                    yield f"{name} of each {kind} {base}", {name: nested}


def with_factors(file, width):
    """longrope's factors are as many as pairs."""
    file = json.loads(json.dumps(file))

    def visit(entry):
        if isinstance(entry, dict):
            if "longrope" in (entry.get("rope_type"), entry.get("type")):
                entry["short_factor"] = [1.0 + 0.1 * i for i in range(width)]
                entry["long_factor"] = [2.0 + 0.1 * i for i in range(width)]
            for value in entry.values():
                visit(value)

    visit(file)
    return file


def config_of(model_type, file):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**json.loads(json.dumps(file)))


def theirs(model_type, known, file):
    """{layer type: (frequencies, amplitude)} of transformers' class."""
    module = importlib.import_module(f"transformers.models.{known['modeling']['module']}")
    rotary = getattr(module, known["modeling"]["rotary_class"])(config_of(model_type, file))
    found = {}
    for name, buffer in rotary.named_buffers():
        if name.endswith("inv_freq") and "original" not in name:
            layer = name.removesuffix("inv_freq").removesuffix("_")
            scaling = getattr(rotary, f"{layer}_attention_scaling" if layer else "attention_scaling", 1.0)
            found[layer] = buffer.double().numpy(), scaling
    return found


def ours(model_type, file, *, follow):
    found = hf.from_config({"model_type": model_type, **file}, follow_upstream_bugs=follow)
    result = {}
    for layer, rope in found.rotations.items():
        if not isinstance(rope, pe.RoPE):
            continue
        if isinstance(rope.scaling, pe.DynamicNTK | pe.LongRoPE):
            rope = dataclasses.replace(rope, length=1)
        result[layer] = np.abs(np.array([float(f) for f in rope.frequencies()])), rope.amplitude()
    return result


def distinct(frequencies):
    """Those of several axes are there once or more often."""
    found = np.sort(frequencies[frequencies > 0])
    return found[np.append(True, np.diff(found) > 1e-6 * found[1:])] if len(found) else found


def differences(model_type, known, file, *, follow):
    """What differs: a message, or None; and whether there was anything to compare. Strict reading may refuse."""
    try:
        width = 4
        if "longrope" in json.dumps(file):
            width = len(
                next(
                    iter(
                        theirs(model_type, known, json.loads(json.dumps(file).replace("longrope", "default"))).values()
                    )
                )[0]
            )
        file = with_factors(file, width)
        wanted = theirs(model_type, known, file)
    except Exception:
        return None, False
    try:
        found = ours(model_type, file, follow=follow)
    except ValueError as refusal:
        if not follow or any(reason in str(refusal) for reason in CANNOT_RUN):
            return None, False
        return f"refused: {str(refusal)[:160]}", True
    if not any(found.values()):
        return None, False  # the model has the class, and does not rotate with these settings
    if not fits(wanted, known["config"].get("qk_rope_head_dim")):
        return None, False
    return first_difference(found, wanted, rtol=1e-6), bool(wanted)


def fits(wanted, turning):
    """Whether queries fit the tables; turning: the channels of a head that turn, where a file says so."""
    return not turning or all(2 * len(frequencies) == turning for frequencies, _ in wanted.values())


def first_difference(found, wanted, *, rtol):
    for layer, (frequencies, amplitude) in wanted.items():
        got = found.get(layer, found.get("", found.get("window")))  # SAM 3's tables are of its windows
        if got is None:
            return f"no rotation of {layer!r}"
        one, two = distinct(got[0]), distinct(frequencies)
        if len(one) != len(two) or not np.allclose(one, two, rtol=rtol, atol=0):
            return f"{layer!r}: {len(one)} {one[-3:]}, not {len(two)} {two[-3:]}"
        if not np.isclose(got[1], amplitude, rtol=rtol):
            return f"{layer!r}: amplitude {got[1]}, not {amplitude}"
    return None


@pytest.mark.parametrize("model_type", sorted(LEAVES))
def test_frequencies_of_random_files(model_type):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    wrong, compared = {}, 0
    switch = dict([LEAVES[model_type]["switch"]] if "switch" in LEAVES[model_type] else [])
    for name, file in variants(LEAVES[model_type]):
        file |= switch
        for follow in (True, False):
            if not follow and is_read_better(file, LEAVES[model_type]):
                continue
            message, there = differences(model_type, LEAVES[model_type], file, follow=follow)
            compared += there
            if message:
                wrong[name, "follow" if follow else "strict"] = message
    logging.disable(logging.NOTSET)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong}"
