"""What a model adds to its tokens and to its logits, from its configuration and the facts of its type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from posembed_jax.contracts import Additive
from posembed_jax.hf.builders import BUILDERS, CONVOLUTION
from posembed_jax.hf.expressions import evaluate, names_in
from posembed_jax.hf.keys import FOLLOW
from posembed_jax.hf.keys import POSITIONAL as ROTARY
from posembed_jax.scheme import Scheme

Values = Mapping[str, Any]

POSITIONAL = re.compile(r"position|rotary|rope|alibi|relative|rel_pos|pos_emb|pos_att|sinus|_buckets")
# What a file may say all the same: lengths, which only bound it, and which rows of a padded table are which.
BESIDES = re.compile(r"^max_|^n_positions$|^_|position_ids_version")


class Found(NamedTuple):
    """Schemes by the place where they come in, what else the model does there, and the values that said so.

    instead_of_rotation: a model that can do either does not rotate.
    """

    additive: dict[str, Additive]
    biases: dict[str, Scheme]
    about: dict[str, dict[str, Any]]
    values: dict[str, Any]
    instead_of_rotation: bool


def placed(config: Values, name: str, facts: Values, *, rotary: bool, follow: bool) -> Found:
    """What a model of this type does, besides rotation.

    Args:
        config: the configuration's file.
        name: of the model type.
        facts: of it, from position_types.json.
        rotary: it rotates as well, and someone else looks at those keys.
        follow: do what transformers does with what it does not read, silently.
    """
    given = _renamed(config, facts, follow)
    if not follow:
        _check_keys(given, name, facts, rotary)
    values = {key: _value(default, given.get(key, default)) for key, default in facts["config"].items()}
    rows = [row for row in facts["places"] if _counts(row, values, name, follow)]
    found = Found({}, {}, {}, values, any(row.get("instead_of_rotation") for row in rows))
    for row in rows:
        for place, scheme, about in _schemes(row, values, name):
            if scheme is not None:
                (found.additive if isinstance(scheme, Additive) else found.biases)[place] = scheme
            if about:
                found.about[place] = {**found.about.get(place, {}), **about}
    return found


def _value(default: Any, given: Any) -> Any:
    """A dict of the file may leave keys to their defaults."""
    return {**default, **given} if isinstance(default, Mapping) and isinstance(given, Mapping) else given


def _counts(row: Values, values: Values, name: str, follow: bool) -> bool:
    """Whether the model of this configuration does this; what the code takes for granted, the file may not deny."""
    for needed in row.get("requires", ()):
        if not evaluate(needed, values) and not follow:
            read = {key: values[key] for key in names_in(needed)}
            raise ValueError(
                f"config has {read}, which transformers' code for model_type {name!r} does not follow; it needs "
                f"{needed[1:]}. {FOLLOW}"
            )
    return bool(evaluate(row.get("when", True), values))


def _schemes(row: Values, values: Values, name: str) -> list[tuple[str, Any, dict[str, Any]]]:
    """(place, scheme, what else) of a row, or one for each of several layers."""
    kind = row["kind"]
    if kind == CONVOLUTION:
        return [(row["place"], None, {kind: evaluate(row["settings"], values)})]
    if kind not in BUILDERS:
        raise ValueError(f"model_type is {name!r}, whose {kind!r} positions this library has no scheme for.")
    found = []
    try:
        for i, each in enumerate(evaluate(row.get("each", (None,)), values)):
            names = {**values, "each": each, "i": i}
            place = row["place"] if "each" not in row else f"{row['place']}.{i}"
            scheme = BUILDERS[kind](**evaluate(row["settings"], names))
            found.append((place, scheme, evaluate(row.get("about", {}), names)))
    except (TypeError, ArithmeticError, KeyError, IndexError) as error:
        keys = names_in([row.get("each"), row["settings"], row.get("about")]) & set(values)
        read = {key: values[key] for key in sorted(keys)}
        raise ValueError(
            f"config has {read}, from which the {kind!r} positions of {name!r} do not follow ({error}); each needs to "
            "be of the form that transformers has by default."
        ) from error
    return found


def _renamed(config: Values, facts: Values, follow: bool) -> dict[str, Any]:
    """The file's values under the names that the code reads; two names for one key need one value."""
    found = dict(config)
    for alias, name in facts.get("attribute_map", {}).items():
        if alias in config and name in config and config[alias] != config[name] and not follow:
            raise ValueError(f"{alias} is {config[alias]}, but {name} is {config[name]}; it needs to be said once.")
        for one, other in ((alias, name), (name, alias)):
            if one in config and other not in config:
                found[other] = config[one]
    return found


def _check_keys(given: Values, name: str, facts: Values, rotary: bool) -> None:
    """A key that speaks of positions and that the model does not read would be another model, silently."""
    ignored = facts.get("unread", {})
    for key, value in given.items():
        if key in ignored and value != ignored[key]:
            raise ValueError(
                f"{key} is {value!r}, which transformers does not read for model_type {name!r}; it needs to be "
                f"{ignored[key]!r}. {FOLLOW}"
            )
    unknown = {
        key: value
        for key, value in given.items()
        if POSITIONAL.search(key) and not BESIDES.search(key) and value is not None
        if not (rotary and ROTARY.search(key))
        and key not in facts["keys"]
        and key not in facts["config"]
        and key not in ignored
    }
    if unknown.get("position_embedding_type") == "absolute" and "position_embedding_type" not in facts["keys"]:
        del unknown["position_embedding_type"]  # what they all do, and older files say
    if unknown:
        raise ValueError(
            f"config has {unknown}, which transformers does not read for model_type {name!r}; it needs to be without. "
            f"{FOLLOW}"
        )
