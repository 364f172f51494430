"""Random files of every rotary type and composite, read strictly: as transformers has them, or refused by name.

    [FILES=40] [SEED=0] python -m pytest tests/parity/test_random_files.py -m parity

A file has one to four of what speaks of rotation, in any combination, some of it of a wrong kind. Compared are the
frequencies, the amplitude and the softmax scale.
"""

import functools
import importlib
import json
import logging
import os
import random
import re
import warnings

import numpy as np
import pytest
from test_composites import ALIASES, CANNOT_RUN, KNOWN, differences
from test_rotary_configs import LEAVES, config_of, first_difference, fits, is_read_better, ours, theirs, types_of_layers

from posembed_jax import hf
from posembed_jax.hf.keys import top_names

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("facts_are_read_once")]

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
SCALINGS = {
    "default": [{}],
    "mrope": [{"mrope_section": [16, 24, 24]}],
    "linear": [{"factor": 4.0}],
    "dynamic": [{"factor": 2.0}],
    "llama3": [
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    ],
    "yarn": [
        {"factor": 4.0, **more}
        for more in ({}, {"beta_fast": 20}, {"mscale": 0.7, "mscale_all_dim": 0.5}, {"attention_factor": 1.2})
    ],
    "proportional": [{"partial_rotary_factor": 0.5}],
}
WRONG = ("10000", [1.0], True, 0, -1, float("nan"), {}, None)
FACTORS, DIVISORS = ("scaling", "softmax_scale", "scale", "inv_norm_factor"), ("scale_attn", "norm_factor")
BASES, PARTS = (10_000.0, 5e5, 123.0, 1_000_000), (0.25, 0.5, 1.0)
OTHERS = {
    "rotary_dim": (16, 32),
    "rope_interleave": (True, False),
    "rope_interleaved": (True, False),
    "rotary_pct": PARTS,
    "query_pre_attn_scalar": (64,),
    "sliding_window_pattern": (2, 3),
    "swa_rope_theta": BASES,
    "global_head_dim": (64,),
    "sliding_window": (16, None),
    "max_position_embeddings": (64, 128, 4096),
    "original_max_position_embeddings": (64, 128),
    "head_dim": (32, 48, 64, 128),
    "rope_theta": BASES,
    "partial_rotary_factor": PARTS,
}


def rotary_dict(chance):
    kind = chance.choice([*SCALINGS, "default", "default"])
    found = {chance.choice(["rope_type", "rope_type", "type"]): kind, **chance.choice(SCALINGS[kind])}
    if chance.random() < 0.6:
        found["rope_theta"] = chance.choice(BASES)
    if chance.random() < 0.2:
        found["partial_rotary_factor"] = chance.choice(PARTS)
    return found


def random_file(chance, known):
    file, kinds = {}, known["layer_types"].get("known", [])
    names = [*top_names(known, "rope_theta"), *top_names(known, "partial_rotary_factor")]
    legacy = {name: PARTS if name.endswith(("pct", "factor")) else BASES for name in names if not name.endswith("[]")}
    for what in chance.sample(["all", "each", "sizes", "layers", *["other"] * 5], chance.randint(1, 4)):
        name = chance.choice(["rope_parameters", "rope_scaling"])
        if what == "all":
            file[name] = rotary_dict(chance) if chance.random() < 0.95 else {}
        elif what == "each" and (layers := types_of_layers(known) or kinds):
            file[name] = {layer: rotary_dict(chance) if chance.random() < 0.95 else None for layer in layers}
        elif what == "sizes":
            file |= {"hidden_size": chance.choice([256, 512, 1024]), "num_attention_heads": chance.choice([4, 8])}
        elif what == "layers" and kinds:
            count = chance.choice([2, 3, 6])
            file |= {"num_hidden_layers": count, "layer_types": [chance.choice(kinds) for _ in range(count)]}
        else:
            key, values = chance.choice([*(OTHERS | legacy).items()])
            file[key] = chance.choice(values if chance.random() < 0.9 else WRONG)
    return file | dict([known["switch"]] if "switch" in known else [])


def scales(config, known):
    """{name of a class that attends: by what it multiplies its logits, or the queries and keys, each}."""
    module, found = importlib.import_module(f"transformers.models.{known['modeling']['module']}"), {}
    family = re.sub("(Rotary|Rope|RoPE).*", "", known["modeling"]["rotary_class"])
    names = [name for name in vars(module) if name.startswith(family) and "Attention" in name]
    for name in [f"{family}Attention"] if f"{family}Attention" in names else names:
        attention = getattr(module, name)
        try:
            with torch.device("meta"):
                made = vars(attention(config, layer_idx=0) if "layer_idx" in code_of(attention) else attention(config))
        except Exception:
            continue  # it needs more than that
        factors = [made.get(key) for key in FACTORS] + [made[key] ** -1 for key in DIVISORS if made.get(key)]
        found |= {name: next((factor for factor in factors if isinstance(factor, float)), None)}
    return {name: scale for name, scale in found.items() if scale is not None}


def code_of(attention):
    return attention.__init__.__code__.co_varnames


@functools.cache
def attentions(model_type):
    """The classes whose scale is that of the positions, by default: those that rotate."""
    switch = dict([LEAVES[model_type]["switch"]] if "switch" in LEAVES[model_type] else [])
    try:
        ours = hf.from_config({"model_type": model_type, **switch}).softmax_scale
    except ValueError:
        return []  # the default of GLM-4V has sections that do not fit its heads
    found = scales(config_of(model_type, switch), LEAVES[model_type])
    return [name for name, scale in found.items() if is_scale(scale, ours)]


def is_scale(theirs, ours):
    """Of logits, or of queries and keys each; ours may be one for each type of layer."""
    all_of = ours.values() if isinstance(ours, dict) else [ours]
    return any(np.isclose(theirs, each ** np.array([1, 0.5]), rtol=1e-9, atol=0).any() for each in all_of if each)


def named(refusal, file):
    """By a key of the file, or as the sections that its class has and that its heads do not fit."""
    return any(key in str(refusal) for key in [*re.findall(r'"(\w+)":', json.dumps(file)), "the sections of"])


def difference(model_type, known, file):
    """What differs from transformers, or None; and whether there was anything to compare."""
    try:
        scale = hf.from_config({"model_type": model_type, **json.loads(json.dumps(file))}).softmax_scale
        found = ours(model_type, json.loads(json.dumps(file)), follow=False)
    except ValueError as refusal:
        return None if named(refusal, file) else f"refused without a name: {refusal}", False
    try:
        wanted = theirs(model_type, known, file)
    except Exception:
        return None, False
    if not fits(wanted, file.get("qk_rope_head_dim", known["config"].get("qk_rope_head_dim"))):
        return None, False
    if not found or is_read_better(file, known):
        return None, False
    for name, wanted_scale in scales(config_of(model_type, file), known).items():
        if name in attentions(model_type) and not is_scale(wanted_scale, scale):
            return f"{name} has the scale {wanted_scale}, not {scale}", True
    return first_difference(found, wanted, rtol=1e-5), True


@pytest.mark.parametrize("model_type", sorted(LEAVES))
def test_random_files(model_type):
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    known, wrong, compared = LEAVES[model_type], [], 0
    chance = random.Random(f"{os.environ.get('SEED', 0)} {model_type}")
    for _ in range(int(os.environ.get("FILES", 40))):
        file = random_file(chance, known)
        message, there = difference(model_type, known, file)
        compared += there
        if message:
            wrong.append((file, message))
    logging.disable(logging.NOTSET)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong[:3]}"


def random_composite(chance, name):
    """Some of the parts, and some keys at the top."""
    file = {}
    for key, of_part in KNOWN["parts"][name].items():
        if chance.random() < 0.6:
            known = LEAVES.get(of_part["type"])
            file[key] = random_file(chance, known) if known and chance.random() < 0.8 else {}
    for key in chance.sample([*OTHERS, "rope_scaling", "hidden_size"], chance.choice([0, 0, 1, 2])):
        others = {"rope_scaling": [rotary_dict(chance)], "hidden_size": [256, 512]}
        file[key] = chance.choice((OTHERS | others)[key])
    return file


def test_random_composites():
    """Each tower is what transformers makes of that part, written out and read alone; or the file is refused."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    wrong, chance = [], random.Random(os.environ.get("SEED", 0))
    for name in sorted(KNOWN["parts"].keys() - {*ALIASES, *CANNOT_RUN}):
        for _ in range(int(os.environ.get("FILES", 40)) // 4):
            file = random_composite(chance, name)
            found = [told for told in differences(name, file) if told.endswith("is wrong")]  # what is left is refused
            wrong += [(name, file, told) for told in found]
    logging.disable(logging.NOTSET)
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"


def test_a_wrong_reading_is_found(monkeypatch):
    """The comparison itself: half of a head, a base that is dropped, and a refusal that names nothing."""
    known = LEAVES["llama"]
    assert difference("llama", known, {"rope_theta": 5e5}) == (None, True)
    real = hf.from_config
    for hidden in ("rope_theta", "head_dim"):
        monkeypatch.setattr(hf, "from_config", lambda file, hidden=hidden, **how: real({**file, hidden: 64}, **how))
        assert difference("llama", known, {"rope_theta": 5e5})[0]
