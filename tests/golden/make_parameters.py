"""Write posembed_jax/hf/parameter_names.json: what transformers calls the arrays of its token and position tables.

Run it in an environment that has the transformers release to read (and torch):

    python tests/golden/make_parameters.py posembed_jax/hf/parameter_names.json

Every model type of `position_types.json` and `rotary_types.json` is made on torch's meta device, with two layers.
The token table is what `get_input_embeddings` gives, under all its names. An array of a scheme is the parameter, of
those whose names speak of positions, that has its shape; one for each layer is a name with {} for the number. `--left`
prints the places where that is none or more than one, and the parameters that no place took.
"""

import argparse
import collections
import importlib
import json
import logging
import pathlib
import re
import warnings

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto import configuration_auto, modeling_auto

from posembed_jax import hf
from posembed_jax.hf.checkpoint import POSITIONAL, stored
from posembed_jax.hf.facts import facts
from posembed_jax.hf.weights import folded

FEWER = re.compile(
    r"^(num_(hidden_|encoder_|decoder_)?layers|n_layers?|(en|de)coder_layers|num_(en|de)coder_blocks|depth)$"
)
HINTS = {  # in the names of the arrays at a place, or of an array, where its shape is that of others
    "entities": r"^entity_",
    "text": r"^embeddings\.position_",
    "visual": r"\.visual_position_",
    "before": r"^pre_tile",
    "behind": r"^post_tile",
    "windows": r"pos_embed_window",
    "patches": r"^gated_positional_embedding\.",
    **{axis: rf"\.{axis}_position_" for axis in "xyhw"},
    "table_0": r"rel_pos_h$|rel_pos_y|row_embed",
    "table_1": r"rel_pos_w$|rel_pos_x|column_embed",
    "u": r"bias_u$|r_w_bias$",
    "v": r"bias_v$|r_r_bias$",
    "kernel": r"linear_pos\.|relative_k_proj|pos_proj|\.r$",
    "keys": r"emb_rel_k",
    "values": r"emb_rel_v",
    "tags": r"xpath_tag",
    "characters": r"alpha_char$",
    "units": r"alpha$",
    "subscripts": r"xpath_subs",
}
HINTS_OF = {  # for one model type
    "layoutlmv3": {"table": r"rel_pos_bias", "table_0": r"rel_pos_x_bias", "table_1": r"rel_pos_y_bias"},
}
SKIPPED = {"levit": ("stages", "between")}  # every other layer has one
FLAG = re.compile(r"^use_.*(position|absolute)")  # another place of the same model


def smaller(config):
    """The configuration, and those in it, with two layers."""
    for key, value in list(vars(config).items()):
        if isinstance(value, transformers.PreTrainedConfig):
            smaller(value)
        elif FEWER.match(key) and isinstance(value, int) and value > 2:
            setattr(config, key, 2)
        elif key == "prediction_length" and value is None:
            config.prediction_length = 4
    if getattr(config, "layer_types", None) and getattr(config, "num_hidden_layers", 0) == 2:
        config.layer_types = config.layer_types[:2]
    return config


def made(model_type, flags=()):
    """The model on the meta device, of two layers if its class allows that, with some flags of its configuration."""
    for shrink in (smaller, lambda config: config):
        try:
            config = shrink(configuration_auto.CONFIG_MAPPING[model_type](**dict.fromkeys(flags, True)))
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return class_of(config)(config)
        except Exception as error:
            last = error
    raise last


def class_of(config):
    """AutoModel's; else the last of its module with this configuration."""
    if type(config) in modeling_auto.MODEL_MAPPING:
        found = modeling_auto.MODEL_MAPPING[type(config)]
        return found[0] if isinstance(found, tuple) else found
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    own = [v for v in vars(module).values() if getattr(v, "config_class", None) is type(config)]
    own = [v for v in own if isinstance(v, type) and "PreTrained" not in v.__name__]
    if not own:
        raise ValueError("no class")
    return own[-1]


def pattern(names):
    """One name for all, {} for a number that is not the same in each; None where they differ in more than numbers."""
    parts = [name.split(".") for name in names]
    if len({len(part) for part in parts}) != 1:
        return None
    columns = [set(column) for column in zip(*parts, strict=True)]
    if not all(len(column) == 1 or all(word.isdigit() for word in column) for column in columns):
        return None
    return ".".join("{}" if len(column) > 1 else column.pop() for column in columns)


def fits(shape, wanted):
    return folded(shape, wanted) is not None


def names_of(model, positions, left, in_file):
    """The facts of one model: the names of its tokens and of the arrays at its places, and what is computed."""
    every = dict(model.named_parameters(remove_duplicate=False))
    parameters = {name: p for name, p in every.items() if POSITIONAL.search(name)}
    places, used = collections.defaultdict(dict), set()
    for place, scheme in {**positions.additive, **positions.biases}.items():
        word, _, number = place.partition(".")
        words = [word, word.rstrip("s"), *([] if number.isdigit() else number.split("."))]
        for array, initializer in scheme.inits().items():
            if word in SKIPPED.get(positions.model_type, ()):
                continue
            wanted, _ = stored(scheme, array, initializer.shape, positions.about.get(place, {}))
            names = [name for name, p in parameters.items() if fits(tuple(p.shape), wanted)]
            hints = {**HINTS, **HINTS_OF.get(positions.model_type, {})}
            for hint in (hints.get(array), *(hints.get(word) for word in words), *words):
                if array.endswith(("_x", "_y")) and hint is None:
                    hint = rf"embed{array[-2:]}\."
                if hint and any(re.search(hint, name) for name in names):
                    names = [name for name in names if re.search(hint, name)]
            if any(name.endswith(f".{array[6:]}.weight") for name in names):  # of a list of tables
                names = [name for name in names if name.endswith(f".{array[6:]}.weight")]
            if number.isdigit():
                names = [name for name in names if number in name.split(".")]
                names += places[word].get(array, ())
            if names and pattern(names):
                used |= set(names)
                places[word if number.isdigit() else place][array] = names
            else:
                left.append((place, type(scheme).__name__, array, wanted, names))
    fixed = {name for name, p in parameters.items() if name not in used and not p.requires_grad}
    left += [("unused", name, tuple(p.shape)) for name, p in parameters.items() if name not in used | fixed]
    found = {
        place: {key: pattern([in_file[id(every[name])] for name in names]) for key, names in arrays.items()}
        for place, arrays in places.items()
    }
    facts = {"places": found, "tokens": [in_file[id(every[name])] for name in token_names(model, every)]}
    facts["tokens"] = list(dict.fromkeys(facts["tokens"]))
    facts["ignored"] = [re.escape(in_file[id(every[name])]) + "$" for name in sorted(fixed)]
    facts["ignored"] += sorted(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    return {key: value for key, value in facts.items() if value}


def names_in_files(model):
    """By the id of each parameter, its name in the files that `save_pretrained` writes."""
    own = dict(model.named_parameters())
    files = revert_weight_conversion(model, dict(own))
    return {id(p): name for name, p in own.items()} | {id(p): name for name, p in files.items()}


def token_names(model, every):
    try:
        module = model.get_input_embeddings()
        table = module.weight
    except (AttributeError, NotImplementedError):
        return []
    if table.ndim != 2 or isinstance(module, torch.nn.Linear):
        return []  # the patches of a picture
    return sorted((name for name, p in every.items() if p is table), key=lambda name: (name.count("."), name))


def towers_of(model, config, positions, left, in_file):
    """The same of each part: the outermost module that has its configuration."""
    found = {}
    for key, tower in positions.towers.items():
        part = getattr(config, key, None)
        inside = [(name, m) for name, m in model.named_modules() if getattr(m, "config", None) is part and name]
        if part is None or not inside:
            left.append(("no module", key))
            continue
        _, module = inside[0]
        facts = names_of(module, tower, [] if tower.towers else left, in_file)
        facts["towers"] = towers_of(module, part, tower, left, in_file)
        found[key] = {key: value for key, value in facts.items() if value}
    return found


def facts_of(model_type, left, flags=()):
    model = made(model_type, flags)
    config = json.loads(model.config.to_json_string(use_diff=False))
    positions = hf.from_config(config, follow_upstream_bugs=True)
    in_file = names_in_files(model)
    facts = names_of(model, positions, left if not positions.towers else [], in_file)
    facts["towers"] = towers_of(model, model.config, positions, left, in_file)
    for key in () if flags else [key for key, value in config.items() if FLAG.match(key) and value is False]:
        facts["places"] = facts_of(model_type, left, (key,)).get("places", {}) | facts.get("places", {})
    return {key: value for key, value in facts.items() if value}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--left", action="store_true", help="print what found no name")
    parser.add_argument("--types", default="", help="these alone, comma-separated; they are printed")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    known, found = facts(), {}
    every = {*known["types"], *known["composites"], *known["others"]["types"], *known["parts"]}
    for model_type in options.types.split(",") if options.types else sorted(every):
        left = []
        try:
            found[model_type] = facts_of(model_type, left)
        except Exception as error:  # a configuration whose defaults are no model
            left.append(("error", f"{type(error).__name__}: {error}"[:200]))
        if options.left and left:
            print(model_type, *left, sep="\n    ", flush=True)
    text = json.dumps({"transformers_version": transformers.__version__, "types": found}, indent=0, sort_keys=True)
    if options.types:
        print(json.dumps(found, indent=1))
    else:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
