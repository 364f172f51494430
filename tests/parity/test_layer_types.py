"""Of which type each layer is, against transformers' configuration classes: at many lengths, with each key changed.

    python -m pytest tests/parity/test_layer_types.py -m parity

Every key of a class is tried, not only those that are known to matter, so that none of them is ignored. A file that
transformers refuses has nothing to compare with.
"""

import ast
import dataclasses
import inspect
import logging
import warnings

import pytest

from posembed_jax import hf
from posembed_jax.hf.facts import facts
from posembed_jax.hf.layer_types import layer_types_of
from posembed_jax.hf.leaf import _renamed
from posembed_jax.hf.model import Model

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

KNOWN = facts()
COMPOSITES = {name: known for name, known in KNOWN["composites"].items() if "modeling" in known}
ROTARY = {
    name: known for name, known in (KNOWN["types"] | COMPOSITES).items() if "num_hidden_layers" in known["config"]
}
LENGTHS = (*range(1, 15), 23, 54)
COUNT = 12
KINDS = ("full_attention", "sliding_attention", "mamba", "attention", "hybrid", "conv", "indexed_attention")
LISTS = [["recurrent", "attention"], [0, 1] * 6, [1, 2], [0, 4, 128] * 4]
VALUES = (0, 1, 2, 3, 5, True, False, None, *LISTS)
# What a class makes types of where another key says so, too.
TOGETHER = [
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 5},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 5},
    {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 5},
    {"first_k_dense_replace": 5, "prefix_dense_sliding_window_pattern": 2, "sliding_window_pattern": 3},
    {"use_dsa": False, "use_sliding_window": False},
    {"use_dsa": False, "layer_types": ["indexed_attention", "sliding_attention"] * 6},
    {"use_dsa": True, "layer_types": ["full_attention", "sliding_attention"] * 6},
    {"sparse_attention_config": {"sparse_attention_freq": [0, 1, 1] * 4}},
    {"use_sliding_window": True, "sliding_window": 64, "no_rope_layer_interval": 3},
    {"use_sliding_window": True, "sliding_window": 64, "no_rope_layers": [0, 1, 1] * 4},
    {"num_nextn_predict_layers": 2, "layer_types": ["full_attention", "sliding_attention"] * 7},
    {"num_nextn_predict_layers": 2},
    {"layer_types": ["sliding_attention"] * 14},
    {"compress_ratios": [0, 4, 128] * 5},
    {"layers_block_type": ["mamba", "hybrid"] * 6},
    {"layers_block_type": ["mamba", "attention"] * 6},
    *({"layer_types": [one, other] * 6} for one in KINDS for other in KINDS),
]
# transformers checks names against those of all models, and fails when the model runs; so does a list that is too short
FAILS_LATER = ("which this model type does not know", "no_rope_layers is [1, 2]")
STRICT = ("layer_types ends with", "but by the model type", "which transformers does not read for this model_type")
STRICT += FAILS_LATER


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """And the facts are read once."""
    monkeypatch.setattr("posembed_jax.hf.config.facts", lambda: KNOWN)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def keys_of(config_class):
    """The fields of a class, and what it takes from further arguments."""
    found = {field.name for field in dataclasses.fields(config_class)} - {"num_hidden_layers"}
    for base in config_class.__mro__:
        if not base.__module__.startswith("transformers.models."):
            continue
        for node in ast.walk(ast.parse(inspect.getsource(base))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("kwargs"), attr="pop" | "get" | "setdefault"),
                    args=[ast.Constant(key), *_],
                ):
                    found.add(key)
    return sorted(found)


def theirs(config_class, file):
    """The types of the layers that the class makes, None where it makes none."""
    config = config_class(**file)
    found = getattr(config, "layer_types", None)
    return None if found is None else tuple(found)


def difference(model_type, known, config_class, file):
    """A message, or None; and whether there was anything to compare."""
    try:
        wanted = theirs(config_class, dict(file))
    except Exception:
        return None, False
    given = _renamed(file, known)
    try:
        found = layer_types_of(Model(given, known, known["config"] | given, follow=True))
    except ValueError as refusal:
        if any(reason in str(refusal) for reason in FAILS_LATER):
            return None, False
        return f"refused: {refusal}", True
    # What has no rule is not read.
    if found != (() if "rule" not in known["layer_types"] else wanted or ()):
        return f"{found}, not {wanted}", True
    try:
        strict = layer_types_of(Model(given, known, known["config"] | given, follow=False))
    except ValueError as refusal:
        return (None if any(reason in str(refusal) for reason in STRICT) else f"refused: {refusal}"), True
    return (None if strict == found or not found else f"strictly {strict}, not {found}"), True


@pytest.mark.parametrize("model_type", sorted(ROTARY))
def test_types_of_layers(model_type):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known, config_class = ROTARY[model_type], CONFIG_MAPPING[model_type]
    files = [{}] + [{"num_hidden_layers": count} for count in LENGTHS]
    base = {"num_hidden_layers": COUNT}
    files += [base | {key: value} for key in keys_of(config_class) for value in VALUES]
    files += [base | together for together in TOGETHER]
    files = [file for file in files if not isinstance(file.get("sparse_attention_config"), list)]
    wrong, compared = {}, 0
    for file in files:
        message, there = difference(model_type, known, config_class, file)
        compared += there
        if message:
            wrong[repr(file)] = message
    assert compared
    assert not wrong, f"{len(wrong)} of {compared}: {wrong}"


def test_keys_are_followed():
    """This test sees a rule that does not read its key."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = ROTARY["modernbert"]
    broken = known | {
        "layer_types": known["layer_types"] | {"rule": "='full_attention' if i % 3 == 0 else 'sliding_attention'"}
    }
    file = {"num_hidden_layers": 8, "global_attn_every_n_layers": 4}
    assert difference("modernbert", broken, CONFIG_MAPPING["modernbert"], file)[0]
    assert difference("modernbert", known, CONFIG_MAPPING["modernbert"], file) == (None, True)
    assert hf.from_config({"model_type": "modernbert", **file}).layers[4] == "full_attention"
