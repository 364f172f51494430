"""The parts of a composite, a model of several towers, as transformers reads them from its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.found import Positions
from posembed_jax.hf.keys import FOLLOW, is_rotary

Values = Mapping[str, Any]
SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers")


def part_of(config: Values, key: str, of_part: Values, known: Values, follow: bool) -> Values | None:
    """The dict of one part, complete where the composite has defaults of its own; None where nothing is known of it.

    of_part: what is known of this part, see `tests/golden/make_parts.py`.
    """
    given = config.get(key)
    if given is None:
        found = _missing(config, key, of_part, known, follow)
    elif isinstance(given, Mapping):
        found = _completed(given, of_part) if "completed" in of_part else dict(given)
    else:
        raise TypeError(f"{key} is {given!r}; it needs to be a dict, as in a config.json.")
    if found is None:
        return None
    kind = _type(given or {}, of_part)
    if not is_known(kind, known):
        _check_known(key, kind, of_part, known, follow)
        return None
    return {**found, "model_type": kind}


def is_known(name: Any, known: Values) -> bool:
    others = known["others"]
    found = (known["types"], known["parts"], others["types"], others["without"])
    return any(name in names for names in found)


def _type(given: Values, of_part: Values) -> Any:
    """The part's type: what its dict says, unless transformers takes one class whatever it says."""
    named = given.get("model_type")
    if named is None or "fixed" in of_part:
        return of_part["type"]
    return of_part.get("renamed", {}).get(named, named)


def _missing(config: Values, key: str, of_part: Values, known: Values, follow: bool) -> Values | None:
    """A part that the file does not have: older files of some composites have it at their top, beside the others."""
    if "from_top" in of_part:
        parts, unread = known["parts"][config["model_type"]], of_part["from_top"]["without"]
        default = known["types"].get(of_part["type"], {}).get("config", {})
        so = {**default, **default.get("rope_parameters", {})}
        lost = sorted(name for name in unread if config.get(name) not in (None, so.get(name)) and name != "head_dim")
        if lost and not follow:  # a head_dim is checked by the part itself
            raise ValueError(
                f"config has {lost} and no {key}, where transformers does not read them at the top; it needs to have "
                f"them in {key}. {FOLLOW}"
            )
        left_out = {*parts, *(unread if follow else ())}
        return {name: value for name, value in config.items() if name not in left_out}
    if key == "text_config" and not follow:
        own = known["tops"].get(config["model_type"], {})
        unread = sorted(size for size in SIZES if size in config and size not in own)
        if unread:
            raise ValueError(
                f"config has {unread} and no text_config, and transformers does not read them; it needs to have them "
                f"in text_config. {FOLLOW}"
            )
    return None if "optional" in of_part else of_part.get("defaults", {})


def _completed(given: Values, of_part: Values) -> dict[str, Any]:
    """The composite's defaults under what the part says; a base in one of its rotary dicts is said, too."""
    defaults = dict(of_part["defaults"])
    dicts = (given.get("rope_parameters") or {}, given.get("rope_scaling") or {})
    if any(isinstance(rotary, Mapping) and rotary.get("rope_theta") is not None for rotary in dicts):
        defaults.pop("rope_theta", None)
    return {**defaults, **given}


def _check_known(key: str, kind: Any, of_part: Values, known: Values, follow: bool) -> None:
    """A tower may not be dropped in silence, unless it is the composite's own, of which there is nothing to know."""
    if kind == of_part["type"]:
        return
    no_scheme = known["others"]["no_scheme"]
    if kind not in no_scheme:
        raise ValueError(
            f"model_type of {key} is {kind!r}; it needs to be one of transformers', such as {of_part['type']!r}. The "
            "other parts can be read alone: from_config(config['text_config'])."
        )
    if not follow:
        raise ValueError(
            f"model_type of {key} is {kind!r}, of whose positions this library has none: {no_scheme[kind]}. To have "
            "the other parts without it, pass follow_upstream_bugs=True."
        )


def is_another(given: Values, of_part: Values, known: Values) -> bool:
    """Whether a part whose class is fixed names another type than that class's, and not a composite's."""
    named = given.get("model_type")
    if "fixed" not in of_part or named == of_part["type"] or not is_known(named, known):
        return False
    return named not in known["parts"]


def check_alike(key: str, found: Positions, named: Positions | None) -> None:
    """A part may name a type that transformers does not take, where it has the same schemes all the same."""
    if named is not None and _schemes(found) != _schemes(named):
        raise ValueError(
            f"model_type of {key} is {named.model_type!r}, but transformers reads {key} as {found.model_type!r}, "
            f"whose positions are others; it needs to be {found.model_type!r}. {FOLLOW}"
        )


def _schemes(positions: Positions) -> tuple[Any, ...]:
    kinds = ({place: type(scheme) for place, scheme in of.items()} for of in (positions.additive, positions.biases))
    return positions.rotations, positions.layers, *kinds


def check_top(config: Values, known: Values) -> None:
    """What stands at the top of a composite's file and speaks of rotation needs to be what its text part says.

    What the class itself writes there, for its own decoder or for nothing, is taken.
    """
    name, text = config["model_type"], config.get("text_config")
    parts, own = known["parts"][name], known["tops"].get(name, {})
    if text is None and "from_top" in parts.get("text_config", ()):
        return
    for key in sorted(key for key in config if is_rotary(key) or key == "head_dim"):
        value = config[key]
        if key in parts or value is None or value == (text or {}).get(key):
            continue
        if key in own and (key == "head_dim" or value == own[key]):
            continue
        raise ValueError(
            f"{key} is {value}, which transformers does not read beside the configurations of {sorted(parts)}; it "
            f"needs to be said in one of them. {FOLLOW}"
        )
