"""Where each configuration class of transformers finds the base and the partial factor of a rotary dict: by trying.

What a class does with the names at the top of a file is code of its own, and differs between files with one rotary
dict, with one for each type of layer, and with none.
"""

import functools
import json

from posembed_jax.hf.keys import LISTED, OWN
from posembed_jax.hf.keys import WHOLE as DICTS
from posembed_jax.hf.top_level import ordinary

FACTOR = 7.0
KINDS = {
    "default": {"rope_type": "default"},
    "scaled": {"rope_type": "linear", "factor": FACTOR},
    "older": {"type": "linear", "factor": FACTOR},
}
VALUES = {"rope_theta": 12345.0, "partial_rotary_factor": 0.625}
ENDS = {"rope_theta": ("theta", "base_freq", "emb_base"), "partial_rotary_factor": ("rotary_pct",)}
LISTS = {"rope_theta": f"rope_theta{LISTED}", "partial_rotary_factor": f"partial_rotary_factors{LISTED}"}


def entries(config):
    """The rotary dicts of a configuration, by layer type; by "" where there is but one."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = {key: value for key, value in found.items() if isinstance(value, dict)}
    return nested or ({"": found} if found else {})


def reached(config_class):
    """Form of a file's rotary dicts -> the layer types for which they count; without the forms that fail."""
    found = {}
    for form, labels in _forms(config_class):
        if not form:
            continue
        try:
            dicts = _built(config_class, form, "scaled", labels, "rope_theta", ())
        except Exception:
            continue
        found[form] = sorted(layer for layer, entry in dicts.items() if entry.get("factor") == FACTOR)
    return found


def older_type_is_lost(config_class, reached_layers):
    """The forms of a file in which "type" is not taken for "rope_type", of which it is the older name."""
    found = []
    for form, layers in reached_layers.items():
        labels = layers if form.startswith("nested ") else ()
        dicts = _built(config_class, form, "older", labels, "rope_theta", ())
        if any(dicts[layer].get("rope_type") != KINDS["older"]["type"] for layer in layers):
            found.append(form)
    return found


def keeps_null_entries(config_class):
    """Whether null for the rotary dict of a layer type stays that: no rotation. Some classes make a dict of it."""
    labels = dict(_forms(config_class)).get("nested rope_parameters", ())
    entry = KINDS["default"] | VALUES
    for label in labels:
        others = {other: dict(entry) for other in labels if other != label}
        try:
            config = config_class(rope_parameters={label: None, **others})
        except Exception:
            return False
        if (config.rope_parameters or {}).get(label, "") is not None:
            return False
    return bool(labels)


def sources(config_class, keys):
    """{form of the file: {layer type: {key: [names, in the order in which they count, and the value without any]}}}.

    A form is "", without a rotary dict, the name of a dict for all layers, or "nested" and the name of dicts for each
    type; " scaled" follows where a rope_type other than "default" differs. What most classes do is left out: ordinary.
    """
    found = {}
    for form, labels in _forms(config_class):
        by_kind = {}
        for kind in ("default", "scaled") if form else ("default",):
            orders = {key: _orders(config_class, form, kind, labels, key, keys) for key in VALUES}
            if None not in orders.values():
                default_theta = getattr(config_class, "default_theta", None)
                usual = {key: ordinary(key, form, default_theta) for key in VALUES}
                layers = {layer for by_layer in orders.values() for layer in by_layer} or {""}
                missing = {"rope_theta": usual["rope_theta"][-1:], "partial_rotary_factor": [None]}  # it has no dict
                of_layers = {key: {layer: orders[key].get(layer, missing[key]) for layer in layers} for key in orders}
                by_kind[kind] = {
                    layer: other
                    for layer in sorted(layers)
                    if (other := {key: of_layers[key][layer] for key in usual if of_layers[key][layer] != usual[key]})
                }
        if by_kind.get("default"):
            found[form] = by_kind["default"]
        if "scaled" in by_kind and by_kind["scaled"] != by_kind.get("default"):
            found[f"{form} scaled"] = by_kind["scaled"]
    return found


def _forms(config_class):
    """(form, the layer types of its dicts) of each form of a file."""
    yield "", ()
    try:
        config = config_class()
    except Exception:
        labels = ()
    else:
        labels = [key for key in entries(config) if key] or sorted({*(getattr(config, "layer_types", None) or ())})
    for name in DICTS:
        yield name, ()
        if labels:
            yield f"nested {name}", tuple(labels)


def _orders(config_class, form, kind, labels, key, keys):
    """{layer type: [names, in their order, and the value without any]}; None where the class takes no such file."""
    scalars = [key, *sorted(name for name in keys if name.endswith(ENDS[key]) and name != key)]
    values = {name: VALUES[key] * (1 + i / 64) for i, name in enumerate([OWN, LISTS[key], *scalars])}
    build = functools.cache(functools.partial(_built, config_class, form, kind, labels, key))

    def takes(name):
        try:
            build(((name, values[name]),))
        except Exception:
            return False
        return True

    scalars = [*filter(takes, scalars)]
    own, others = [OWN] if form else [], [name for name in scalars if name != key]
    try:
        found = _eliminate(build, values, [*own, *scalars], key)
        with_list = _eliminate(build, values, [*own, LISTS[key], *others], key) if takes(LISTS[key]) else {}
    except Exception:
        return None
    for layer, order in with_list.items():
        if LISTS[key] in order:
            found[layer].insert(order.index(LISTS[key]), LISTS[key])
    return found


def _eliminate(build, values, names, key):
    """The names of each layer type in the order in which they win, each without those before it."""
    found = {}
    for layer in build(tuple((name, values[name]) for name in names)):
        left, order = list(names), []
        while True:
            value = build(tuple((name, values[name]) for name in left)).get(layer, {}).get(key)
            won = [name for name in left if values[name] == value]
            if not won:
                break
            order += won
            left = [name for name in left if name not in won]
        found[layer] = [*order, value if isinstance(value, (int, float)) else None]
    return found


def _built(config_class, form, kind, labels, key, given):
    """The rotary dicts of a file of this form, with these (name, value) in it."""
    given, entry, plain = dict(given), dict(KINDS[kind]), config_class()
    name = form.removeprefix("nested ")
    own = getattr(plain, "rope_parameters", None) or {} if name else {}
    entry |= {needed: own[needed] for needed in ("mrope_section",) if needed in own}
    if key != "rope_theta":
        entry["rope_theta"] = VALUES["rope_theta"]
    if OWN in given:
        entry[key] = given.pop(OWN)
    kinds = [*labels, *labels[::-1]]  # some classes need the last layer to be of the first type
    of_layers = [{"layer_types": kinds, "num_hidden_layers": len(kinds)}] if labels else []
    for sizes in (*of_layers, {}):  # without them where the labels of the dicts are no types of layers
        file = {top: value for top, value in given.items() if not top.endswith(LISTED)} | sizes
        count = sizes.get("num_hidden_layers") or getattr(plain, "num_hidden_layers", None)
        file |= {top.removesuffix(LISTED): [value] * count for top, value in given.items() if top.endswith(LISTED)}
        if name:
            file[name] = {label: json.loads(json.dumps(entry)) for label in labels} or dict(entry)
        try:
            config = config_class(**file)
        except Exception:
            if not sizes:
                raise
        else:
            break
    rope_types = {entry.get("rope_type", entry.get("type", "default")) for entry in entries(config).values()}
    if rope_types - {"default", "axial"}:  # as the frequencies of such are made
        config.standardize_rope_params()
    return entries(config)
