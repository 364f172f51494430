"""By which numbers rotary models multiply their logits, against the attributes of transformers' own attention classes.

    python -m pytest tests/parity/test_scales.py -m parity

The models are made on torch's meta device, with two layers and their default configuration.
"""

import importlib
import logging
import re
import warnings

import jax
import numpy as np
import pytest

from posembed_jax import hf
from posembed_jax.hf.facts import facts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

LEAVES = {name: known for name, known in facts()["types"].items() if known["softmax_scale"]}
MULTIPLY, DIVIDE = ("scaling", "softmax_scale", "scale", "inv_norm_factor"), ("scale_attn", "norm_factor")
FEWER = re.compile(r"^(num_(hidden_|encoder_|decoder_)?layers|n_layers?|depth)$")
HALVES = {"openai_privacy_filter"}  # the square root on queries and on keys
# transformers cannot make these by default
UNMADE = (
    "KeyError|NoneType|has no attribute|no class|argument 'size'|takes 1 positional|requires the timm|Could not find"
)


def shorter(config):
    """With two layers, or as many as it takes to have each kind of them."""
    kinds = list(getattr(config, "layer_types", None) or ())
    count = max([2, *(kinds.index(kind) + 1 for kind in kinds)])
    for key, value in list(vars(config).items()):
        if FEWER.match(key) and isinstance(value, int) and value > count:
            setattr(config, key, count)
    if kinds:
        config.layer_types = kinds[:count]
    return config


def made(model_type):
    from transformers.models.auto import configuration_auto, modeling_auto

    for shrink in (shorter, lambda config: config):
        try:
            config = shrink(configuration_auto.CONFIG_MAPPING[model_type]())
            found = modeling_auto.MODEL_MAPPING.get(type(config), None) or class_of(type(config))
            with torch.device("meta"):
                return (found[0] if isinstance(found, tuple) else found)(config)
        except Exception as error:
            last = error
    raise last


def class_of(config_class):
    """The last of its module with this configuration."""
    module = importlib.import_module(config_class.__module__.replace("configuration_", "modeling_"))
    own = [v for v in vars(module).values() if getattr(v, "config_class", None) is config_class]
    own = [v for v in own if isinstance(v, type) and "PreTrained" not in v.__name__]
    if not own:
        raise ValueError("no class")
    return own[-1]


def scales(model):
    found = set()
    for module in model.modules():
        if "Attention" in type(module).__name__:
            values = [getattr(module, name, None) for name in MULTIPLY]
            values += [1.0 / getattr(module, name) for name in DIVIDE if isinstance(getattr(module, name, None), float)]
            found |= {value for value in values if isinstance(value, float | int) and not isinstance(value, bool)}
    return found


@pytest.mark.parametrize("model_type", sorted(LEAVES))
def test_softmax_scale(model_type):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    switch = LEAVES[model_type].get("switch")
    try:
        ours = hf.from_config({"model_type": model_type} | (dict([switch]) if switch else {})).softmax_scale
        theirs = scales(made(model_type))
    except Exception as error:
        if re.search(UNMADE, f"{type(error).__name__} {error}") or "sections of rope_parameters" in str(error):
            pytest.skip(f"{type(error).__name__}: {error}"[:120])
        raise
    finally:
        logging.disable(logging.NOTSET)
    if not theirs:
        pytest.skip("the class keeps no such number")
    for wanted in ours.values() if isinstance(ours, dict) else [ours]:
        powers = {wanted, wanted**0.5} if model_type in HALVES else {wanted}
        assert any(value == pytest.approx(power, rel=1e-9) for value in theirs for power in powers), theirs


def test_attention_weights_of_esm():
    """Its class keeps no such number: it scales the queries before they rotate."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    file = {"position_embedding_type": "rotary", "vocab_size": 33, "pad_token_id": 1, "token_dropout": False, **sizes}
    torch.manual_seed(0)
    model = transformers.EsmModel(transformers.EsmConfig(**file, attn_implementation="eager")).eval()
    attention, projected = model.encoder.layer[0].attention.self, {}
    for name in ("query", "key"):
        getattr(attention, name).register_forward_hook(lambda _, __, out, name=name: projected.update({name: out}))
    with torch.no_grad():
        (theirs,) = model(torch.randint(4, 30, (2, 40)), output_attentions=True).attentions
    found = hf.from_config({"model_type": "esm", **file})
    heads = {name: np.reshape(x.numpy(), (2, 40, 4, 16)) for name, x in projected.items()}
    query, key = (found.rotation.bind({})(heads[name], np.arange(40)) for name in ("query", "key"))
    ours = jax.nn.softmax(np.einsum("btnd,bsnd->bnts", query, key) * found.softmax_scale)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-8)
    assert np.ptp(theirs.numpy()) > 1e-3
