"""Composites, models of several towers, read as transformers' own classes read them: from many files of each.

    python -m pytest tests/parity/test_composites.py -m parity

What transformers makes of each part of a file, written out, is the model whose positions that tower needs to have.
"""

import json
import logging
import warnings

import pytest

from posembed_jax import hf
from posembed_jax.hf.facts import facts

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

KNOWN = facts()
ALIASES = ("EvollaModel", "gpt-sw3", "mlcd")  # whose classes have another name
CANNOT_RUN = ("esm", *KNOWN["others"]["no_scheme"])  # with their own defaults
NAMES = sorted({*KNOWN["types"], *KNOWN["composites"], *KNOWN["others"]["types"], *KNOWN["parts"]} - {*ALIASES})


def plain(config):
    return json.loads(json.dumps(config, default=lambda value: None))


def read(file):
    """Our positions, and a message where there are none."""
    try:
        return hf.from_config(file), None
    except ValueError as refusal:
        return None, str(refusal)


def theirs(name, file):
    """transformers' configuration of a file, None where it does not take that."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        return CONFIG_MAPPING[name](**plain(file))
    except Exception:
        return None


def files(name):
    """Files of a composite: whole, without parts, with parts that say little, or that name a type."""
    config = theirs(name, {})
    yield "default", {}
    if config is not None:
        yield "to_dict", plain(config.to_dict())
        yield "to_diff_dict", plain(config.to_diff_dict())
    for key, of_part in KNOWN["parts"][name].items():
        yield f"{key} is empty", {key: {}}
        yield f"{key} is null", {key: None}
        yield f"{key} of 3 layers", {key: {"num_hidden_layers": 3}}
        yield f"{key} of 3 layers, named", {key: {"num_hidden_layers": 3, "model_type": of_part["type"]}}
        if "fixed" in of_part:
            yield f"{key} named {name}", {key: {"model_type": name}}
            yield f"{key} named by nobody", {key: {"model_type": "nobody"}}
        elif key == "text_config":
            yield f"{key} named qwen2", {key: {"model_type": "qwen2"}}
        for other in of_part.get("renamed", ()):
            yield f"{key} named {other}", {key: {"model_type": other}}
    if "text_config" in KNOWN["parts"][name]:
        yield "layers at the top", {"num_hidden_layers": 3}


def differences(name, file):
    """What is wrong with our towers of a file that transformers takes."""
    config = theirs(name, file)
    if config is None:
        return []
    found, refused = read({**file, "model_type": name})
    wanted = {}
    for key in KNOWN["parts"][name]:
        part = getattr(config, key, None)
        if part is not None and getattr(part, "model_type", None):
            wanted[key] = read(plain(part.to_dict()))
    if refused is not None:
        # as their part alone is; or for sizes at the top, which transformers does not read
        passed = any(message for _, message in wanted.values()) or "and no text_config" in refused
        return [] if passed else [f"refused: {refused[:150]}"]
    wanted = {key: tower for key, (tower, _) in wanted.items() if tower is not None}
    wrong = [f"{key} is wrong" for key, tower in wanted.items() if found.towers.get(key) != tower]
    return wrong + [f"{key} is too much" for key in found.towers.keys() - wanted.keys()]


@pytest.fixture(autouse=True)
def quiet():
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_every_part_of_every_composite(monkeypatch):
    monkeypatch.setattr("posembed_jax.hf.config.facts", lambda: KNOWN)  # read once
    wrong, compared = [], 0
    for name in KNOWN["parts"]:
        if name in (*ALIASES, *CANNOT_RUN):
            continue
        for label, file in files(name):
            compared += 1
            wrong += [f"{name}, {label}: {what}" for what in differences(name, file)]
    assert not wrong, "\n".join(wrong)
    assert compared > 2000


def test_what_a_class_writes_is_its_default(monkeypatch):
    """For every model type: `to_dict()`, which `save_pretrained` writes, and `to_diff_dict()`."""
    monkeypatch.setattr("posembed_jax.hf.config.facts", lambda: KNOWN)
    wrong, compared = [], 0
    for name in NAMES:
        config, (default, _) = theirs(name, {}), read({"model_type": name})
        if config is None or default is None:
            continue
        for written in (config.to_dict(), config.to_diff_dict()):
            compared += 1
            found, refused = read({**plain(written), "model_type": name})
            if found != default:
                wrong.append(f"{name}: {refused or 'differs'}")
    assert not wrong, "\n".join(wrong)
    assert compared > 1200
