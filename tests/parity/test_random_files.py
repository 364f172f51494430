"""Random files of every rotary model type, read strictly: as transformers' own class has it, or refused by name.

    [FILES=40] [SEED=0] python -m pytest tests/parity/test_random_files.py -m parity

A file has one to four of what speaks of rotation, in any combination, some of it of a wrong kind.
"""

import json
import logging
import os
import random
import re
import warnings

import pytest
from test_rotary_configs import LEAVES, first_difference, fits, is_read_better, ours, theirs, types_of_layers

from posembed_jax import hf
from posembed_jax.hf.keys import top_names

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
            file[name] = rotary_dict(chance)
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


def named(refusal, file):
    """By a key of the file, or as the sections that its class has and that its heads do not fit."""
    return any(key in str(refusal) for key in [*re.findall(r'"(\w+)":', json.dumps(file)), "the sections of"])


def difference(model_type, known, file):
    """What differs from transformers, or None; and whether there was anything to compare."""
    try:
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


def test_a_wrong_reading_is_found(monkeypatch):
    """The comparison itself: half of a head, a base that is dropped, and a refusal that names nothing."""
    known = LEAVES["llama"]
    assert difference("llama", known, {"rope_theta": 5e5}) == (None, True)
    real = hf.from_config
    for hidden in ("rope_theta", "head_dim"):
        monkeypatch.setattr(hf, "from_config", lambda file, hidden=hidden, **how: real({**file, hidden: 64}, **how))
        assert difference("llama", known, {"rope_theta": 5e5})[0]
