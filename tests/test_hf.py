"""transformers' `rope_parameters` and scalings: there and back, strict, and nothing ignored."""

import pytest
from schemes import LENGTH_SCALINGS, SCALINGS

import posembed_jax as pe
from posembed_jax import hf

LONGEST = 16  # the original length of the dynamic NTK in LENGTH_SCALINGS
MSCALE = pe.YaRN(factor=40.0, original_length=64, beta_fast=20.0, truncate=False, mscale=1.0, mscale_all_dim=0.7)
ALL = {**SCALINGS, **LENGTH_SCALINGS, "none": None, "yarn_mscale": MSCALE}


@pytest.mark.parametrize("name", ALL)
def test_there_and_back(name):
    parameters = hf.rope_parameters(ALL[name], base=500_000.0)
    assert parameters["rope_theta"] == 500_000.0
    assert hf.scaling(parameters, max_position_embeddings=LONGEST) == ALL[name]
    again = hf.rope_parameters(hf.scaling(parameters, max_position_embeddings=LONGEST), base=500_000.0)
    assert again == parameters


def facts(parameters):
    """The frequencies and the amplitude of a scaling, short and long."""
    found = hf.scaling(parameters, max_position_embeddings=LONGEST)
    lengths = (10, 24) if isinstance(found, pe.LongRoPE | pe.DynamicNTK) else (None,)
    ropes = [pe.RoPE(dim=8, layout="half", base=500.0, scaling=found, length=length) for length in lengths]
    return [[*map(float, rope.frequencies()), rope.amplitude()] for rope in ropes]


def changed(value):
    if isinstance(value, bool):
        return not value
    return [1.5 * x for x in value] if isinstance(value, list) else value * 2 if isinstance(value, int) else value * 0.7


WIDE = pe.YaRN(factor=4.0, original_length=512, beta_slow=2.0, truncate=False, mscale=0.7, mscale_all_dim=0.3)
HALF = {"rope_proportional": pe.Proportional(fraction=0.75), "rope_yarn": WIDE}
MUTABLE = {**SCALINGS, **LENGTH_SCALINGS, **HALF}


@pytest.mark.parametrize("name", MUTABLE)
def test_no_key_is_ignored(name):
    parameters = hf.rope_parameters(MUTABLE[name], base=500.0)
    before = facts(parameters)
    for key in parameters.keys() - {"rope_type", "rope_theta"}:
        assert facts({**parameters, key: changed(parameters[key])}) != before, key
        with pytest.raises(ValueError, match="to be without"):
            facts({**parameters, key + "s": 1.0})


@pytest.mark.parametrize(
    "parameters, expected",
    [
        ({"type": "linear", "factor": 2.5}, pe.Linear(factor=2.5)),
        ({"type": "mrope", "mrope_section": [2, 1, 1]}, None),
        ({"rope_theta": 1e6}, None),
        ({"rope_type": "axial", "rope_theta": 100.0}, None),
        ({"rope_type": "default", "type": "mrope", "mrope_section": [2, 1, 1]}, None),
        ({"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "mscale": 1.0}, pe.NTK(factor=1000.0)),
        (
            {"type": "yarn", "factor": None, "original_max_position_embeddings": 4},
            pe.YaRN(factor=4.0, original_length=4),
        ),
        ({"type": "yarn", "factor": 4.0, "finetuned": True}, pe.YaRN(factor=4.0, original_length=LONGEST)),
        (
            {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.0},
            pe.YaRN(factor=4.0, original_length=LONGEST, mscale=1.0),
        ),
        (
            {"type": "su", "short_factor": [1.0], "long_factor": [2.0], "original_max_position_embeddings": 8},
            pe.LongRoPE(short_factor=(1.0,), long_factor=(2.0,), original_length=8, attention_factor=(4 / 3) ** 0.5),
        ),
    ],
)
def test_forms_of_published_files(parameters, expected):
    found = hf.scaling(parameters, max_position_embeddings=LONGEST)
    if isinstance(expected, pe.LongRoPE):
        assert found.attention_factor == pytest.approx(expected.attention_factor, rel=1e-12)
    else:
        assert found == expected
