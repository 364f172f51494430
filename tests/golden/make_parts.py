"""Write posembed_jax/hf/part_types.json: how transformers' composites, models of several towers, read their parts.

Run it in an environment that has the transformers release to read, after `make_types.py` and `make_positions.py`:

    python tests/golden/make_parts.py posembed_jax/hf/part_types.json

Every configuration class with parts is asked, by giving it files: which class a part gets that names another type, what
it has when it is missing or says little, and whether values at the top of the file are its own.
"""

import argparse
import ast
import copy
import inspect
import json
import logging
import pathlib
import warnings

from posembed_jax.hf.facts import OTHERS, ROTARY
from posembed_jax.hf.keys import is_rotary, top_names
from posembed_jax.hf.parts import SIZES

STRANGE = ("llama", "bert", "vit")  # types that a part whose class is fixed does not become
LITTLE = {"what_no_class_knows": 1}


def part_of(config_class, key, value):
    """The part of a file that says this of it, None where the class cannot read that."""
    spec = config_class.sub_configs_defaults[key]
    before = copy.deepcopy(spec.init_kwargs)  # in which the classes of other types write
    try:
        return getattr(config_class(**{key: value}), key)
    except Exception:
        return None
    finally:
        spec.init_kwargs = before


def type_of(config):
    return getattr(config, "model_type", None) or None


def known_keys(known, model_type):
    """The keys of a type, or of a composite and its parts, that say something of positions."""
    found = set()
    for of_type in (known["types"], known["composites"], known["others"]["types"]):
        of_type = of_type.get(model_type, {})
        found |= {*of_type.get("config", ()), *of_type.get("keys", ()), *of_type.get("reached", ())}
        if "sources" in of_type:
            found |= {*top_names(of_type, "rope_theta"), *top_names(of_type, "partial_rotary_factor")}
    return found - {"attribute_map", "_rope_type_labels"}


def values_of(config, known):
    """Of a part, what says something of positions; of one with parts itself, theirs."""
    of_type, nested = known_keys(known, type_of(config)), set(getattr(config, "sub_configs", None) or ())
    found = json.loads(json.dumps(config.to_dict(), default=str))
    return {key: found[key] for key in sorted(of_type - nested) if key in found}


def differences(config, known):
    """What a part says that its own class does not by default, without what follows from the rest of it."""
    config_class = type(config)
    default = config_class()
    before, wanted = values_of(default, known), values_of(config, known)
    found = dict(wanted)
    nested, of_class = set(getattr(config, "sub_configs", None) or ()), default.to_dict()
    rest = {key: value for key, value in config.to_dict().items() if key in of_class and value != of_class[key]}
    rest = {key: value for key, value in rest.items() if key not in {*before, *nested}}  # which a class may check
    theta = base_alone(found.get("rope_parameters"), before.get("rope_parameters"))
    if theta is not None:
        found["rope_theta"] = theta
        del found["rope_parameters"]
    for key in sorted(found):
        fewer = {name: value for name, value in found.items() if name != key}
        if written(config_class, rest | fewer, known) == wanted:
            found = fewer
    assert written(config_class, rest | found, known) == wanted, (type_of(config), found, wanted)
    for key in sorted(nested):
        own, of_class = getattr(config, key), getattr(default, key)
        if own is not None and values_of(own, known) != values_of(of_class, known):
            found[key] = differences(own, known) | {"model_type": type_of(own)}
    return found


def written(config_class, values, known):
    try:
        return values_of(config_class(**values), known)
    except Exception:
        return None


def base_alone(parameters, before):
    """The base, where it is all in which rotary dicts differ."""
    if not parameters or not before or parameters | {"rope_theta": before.get("rope_theta")} != before:
        return None
    return parameters["rope_theta"]


def renamed(config_class, key):
    """Names that a class puts right: those that its module speaks of, and its own."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(config_class)))
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    found = {name: type_of(part_of(config_class, key, {"model_type": name})) for name in names if name.isidentifier()}
    return {name: kind for name, kind in sorted(found.items()) if kind not in (None, name)}


def is_fixed(config_class, key, model_type, spec):
    """Whether the class of a part is the same whatever type it names."""
    from transformers import PreTrainedConfig

    if issubclass(spec.config_class, PreTrainedConfig):
        return True
    strange = [name for name in STRANGE if name != model_type]
    return all(type_of(part_of(config_class, key, {"model_type": name})) == model_type for name in strange)


AT_TOP = {  # values that are no class's default
    "hidden_size": 192,
    "num_attention_heads": 6,
    "head_dim": 48,
    "max_position_embeddings": 321,
    "original_max_position_embeddings": 123,
    "rope_theta": 12345.0,
    "partial_rotary_factor": 0.625,
    "rope_parameters": {"rope_type": "linear", "factor": 7.0},
    "rope_scaling": {"rope_type": "linear", "factor": 7.0},
}


def counts_at_top(config_class, key, name, value, known):
    """Whether a value at the top of a file that has nothing in the place of a part is this part's."""
    part = getattr(config_class(), key)
    made = getattr(config_class(**{name: value}), key)
    return getattr(made, name, None) == value or values_of(made, known) != values_of(part, known)


def from_top(config_class, key, part, known):
    """Of a part that is at the top of the file where its own place is empty: the keys that do not count there."""
    if not isinstance(getattr(part, "num_hidden_layers", None), int):
        return None
    try:
        if not counts_at_top(config_class, key, "num_hidden_layers", part.num_hidden_layers * 2, known):
            return None
    except Exception:
        return None
    unread = []
    for name, value in AT_TOP.items():
        try:
            unread += [] if counts_at_top(config_class, key, name, value, known) else [name]
        except Exception:
            continue  # it is read, and refused alone
    return sorted(unread)


def part_facts(config_class, config, key, spec, known):
    part = getattr(config, key, None)
    found = {"type": type_of(part) or type_of(spec)}
    if part is None and spec.optional:
        found["optional"] = True
        part = part_of(config_class, key, {"model_type": found["type"]})
    if is_fixed(config_class, key, found["type"], spec):
        found["fixed"] = True
    elif names := renamed(config_class, key):
        found["renamed"] = names
    if part is None or "optional" in found:
        return found
    if defaults := differences(part, known):
        found["defaults"] = defaults
        little = part_of(config_class, key, LITTLE | ({"model_type": found["type"]} if found["type"] else {}))
        if little is not None and differences(little, known) == defaults:
            found["completed"] = True
            if "fixed" not in found:  # and another type may read others of them
                known_of_any = set().union(*(known_keys(known, name) for name in known["types"]))
                more = {name: value for name, value in spec.init_kwargs.items() if name in known_of_any}
                found["defaults"] = {**more, **defaults}
    unread = from_top(config_class, key, part, known)
    if unread is not None:
        found["from_top"] = {"without": unread}
    return found


def top_of(config):
    """What the class itself writes at the top of a file and could be of a part."""
    found = json.loads(json.dumps(config.to_dict(), default=str))
    keys = {key for key in found if is_rotary(key) or key == "head_dim" or key in SIZES}
    return {key: found[key] for key in sorted(keys - {*config.sub_configs})}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, nargs="?", help="file to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    folder = pathlib.Path(__file__).parents[2] / "posembed_jax/hf"
    known, others = (json.loads((folder / name).read_text()) for name in (ROTARY, OTHERS))
    known, parts, tops = known | {"others": others}, {}, {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        config_class = CONFIG_MAPPING[model_type]
        if not getattr(config_class, "sub_configs", None):
            continue
        try:
            config = config_class()
        except Exception as error:
            print(f"{model_type} has no default: {str(error).splitlines()[0][:80]}")
            config = None
        specs = config_class.sub_configs_defaults
        parts[model_type] = {key: part_facts(config_class, config, key, spec, known) for key, spec in specs.items()}
        if config is not None and (top := top_of(config)):
            tops[model_type] = top
    result = {"parts": parts, "tops": tops, "transformers_version": transformers.__version__}
    if arguments.output:
        arguments.output.write_text(json.dumps(result, sort_keys=True, indent=0, separators=(",", ":")) + "\n")
    print(f"{len(parts)} composites of {sum(map(len, parts.values()))} parts")


if __name__ == "__main__":
    main()
