"""The values at the top of a transformers configuration that belong into its rotary dicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.keys import FOLLOW, LISTED, OWN, top_names
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import OWN_HEADS, own_head

Values = Mapping[str, Any]

PARTIAL = "partial_rotary_factor"
PARTIAL_WIDTHS = ("rotary_dim", "qk_rope_head_dim")  # channels that turn, where a model's class makes a factor of them


class Form(NamedTuple):
    """How a file has its rotary dicts.

    name is "", without such a dict, the name of one for all layers, or "nested" and the name of dicts for each type of
    layer; layers are the types that have one, and scaled says whether one of them has a rope_type of its own.
    """

    name: str
    layers: Collection[str]
    scaled: bool


def is_entry(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def settle(key: str, layer: str, entry: dict[str, Any], model: Model, form: Form) -> None:
    """Put a value into the rotary dict of a layer type, from where this model's class takes it."""
    order = _order(key, layer, model, form)
    if not model.follow and order != _order(key, layer, model, form._replace(scaled=entry["rope_type"] != "default")):
        _check_said(key, layer, entry, model, order)
    *names, default = order
    told = {**model.given, OWN: entry.pop(key, None) if form.name else None}
    values = {name: told[name] for name in names if told.get(name) is not None}
    if key == PARTIAL and (width := _of_width(model)):
        name, default = width
        if not model.follow and any(value != default for value in values.values()):
            raise ValueError(
                f"{name} is {model.values[name]}, by which {default} of a head turn, but {PARTIAL} is "
                f"{next(iter(values.values()))}; it needs to be said once, or the same."
            )
    null = [name for name in names if name != OWN and told.get(name, "") is None]
    if null and not values and default is not None:
        raise ValueError(
            f"{null[0]} is None, of which some classes of transformers make {default}, others nothing; it needs to be "
            "a number, or left out."
        )
    value = next(iter(values.values()), default)
    if not model.follow:
        _check_once(key, layer, model, form, values)
        _check_unread(key, layer, model, form, told, value)
    if value is not None:
        entry[key] = value
    elif key == "rope_theta":
        name = form.name.removeprefix("nested ") or "the rotary dict"
        raise ValueError(
            f"{name}{f' of {layer!r}' if layer else ''} is {entry}; it needs rope_theta, for which "
            "transformers has no default in this form of file."
        )


def _order(key: str, layer: str, model: Model, form: Form) -> list[Any]:
    """Where this model's class finds the value of a layer: names, in the order in which they count, and the default.

    "own" is the dict's own value, and "name[]" that of a list with a value for each layer. See `sources` of
    tests/golden/source_probes.py.
    """
    sources, usual = model.known["sources"], ordinary(key, form.name, model.known["default_theta"])
    by_layer = sources.get(f"{form.name} scaled" if form.scaled else form.name, sources.get(form.name, {}))
    return by_layer.get(_like(layer, model.known), {}).get(key, usual)


def ordinary(key: str, form: str, default_theta: Any) -> list[Any]:
    """What most classes do, in a form of file."""
    return [*([OWN] if form else []), key, default_theta if key == "rope_theta" else None]


def _check_said(key: str, layer: str, entry: Values, model: Model, order: list[Any]) -> None:
    """Beside layers that are scaled, others find their values elsewhere, in some classes and depending on the order."""
    *names, default = order
    at_the_top = any(model.given.get(name) is not None for name in names if name != OWN)
    if entry.get(key) is None and (at_the_top or default is not None):
        raise ValueError(
            f"the rotary dict of {layer!r} is {dict(entry)}; beside others with a rope_type it needs {key}, which "
            "transformers finds or not as they come."
        )


def _check_once(key: str, layer: str, model: Model, form: Form, values: Values) -> None:
    """The values that this model's class finds, of which it takes the first."""
    first, value = next(iter(values.items()), ("", None))
    for name, other in values.items():
        if other != value and not _is_of_others(name, key, layer, model, form):
            said = f"the rotary dict says {key}" if first == OWN else f"{first} is"
            raise ValueError(f"{name} is {other}, but {said} {value}; it needs to be said once, or the same.")


def _is_of_others(name: str, key: str, layer: str, model: Model, form: Form) -> bool:
    """Whether a name at the top is that of other layers, where these have one of their own: Gemma 3's two bases."""
    names = {each: _order(key, each, model, Form("", (), scaled=False))[:-1] for each in form.layers}
    return bool(names[layer]) and name not in names[layer] and any(name in others for others in names.values())


def _like(layer: str, known: Values) -> str:
    """The layer type itself, or, where the default has none such, the one whose values it gets."""
    labels = [key for key, value in known["config"].get("rope_parameters", {}).items() if is_entry(value)]
    return layer if layer in labels or "labels_of_layers" not in known else labels[0]


def _check_unread(key: str, layer: str, model: Model, form: Form, told: Values, value: Any) -> None:
    """A value that these layers do not get, that is not theirs all the same, and that is not of other layers."""
    names = _order(key, layer, model, form)[:-1]
    same = 1.0 if key == PARTIAL and value is None else value
    told = {**told, "rope_theta": None} if _has_a_base_for_windows(layer, told, value) else told
    for name in (OWN, *top_names(model.known, key)):
        if name in names or told.get(name) in (None, same) or _is_of_others(name, key, layer, model, form):
            continue
        where = "of the rotary dict " if name == OWN else ""
        beside = f" beside {form.name.removeprefix('nested ')}" if form.name and name != OWN else ""
        raise ValueError(
            f"{key if name == OWN else name.removesuffix(LISTED)} {where}is {told[name]}, which transformers does not "
            f"read for {f'the layers {layer!r} of ' if layer else ''}this model_type{beside}; it needs to be said in "
            f"rope_parameters{' for each layer type' if layer else ''}. {FOLLOW}"
        )


def _has_a_base_for_windows(layer: str, told: Values, value: Any) -> bool:
    """MiMo V2's files say that of the layers with a window under a name that transformers does not read."""
    return layer == "sliding_attention" and value is not None and told.get("swa_rope_theta") == value


def _of_width(model: Model) -> tuple[str, float] | None:
    """The partial factor from a number of channels that turn, and the name of that number."""
    if how := model.derived.get(PARTIAL):
        return "qk_rope_head_dim", evaluate(how, model.values)
    width = model.given.get("head_dim") or model.known["config"].get("head_dim")
    for name in PARTIAL_WIDTHS:
        if name in model.known.get("legacy_keys", ()) and model.given.get(name) and width:
            return name, model.given[name] / width
    return None


def settle_own_heads(layer: str, entry: dict[str, Any], model: Model, form: Form) -> None:
    """Dots 3: how much of a head turns follows from the widths of its type of layer alone."""
    width, turning = own_head(layer, model.given, model.values)
    if not 1 <= turning <= width:
        raise ValueError(
            f"the heads of {layer!r} have {width} channels, but {turning} need to turn: head_dim and qk_rope_head_dim "
            f"(swa_head_dim and {OWN_HEADS}) need to fit."
        )
    before = entry.get(PARTIAL) if form.name else None
    if not model.follow and before not in (None, turning / width):
        raise ValueError(
            f"partial_rotary_factor of {layer!r} is {before}, but by head_dim and qk_rope_head_dim (swa_head_dim and "
            f"{OWN_HEADS}) {turning} of {width} channels turn; it needs to be the same: transformers reads the widths."
        )
    entry[PARTIAL] = turning / width
    if not model.follow:
        _check_unread(PARTIAL, layer, model, form, model.given, entry[PARTIAL])


def fill_original(layer: str, entry: dict[str, Any], model: Model) -> None:
    """The original length at the top of the file, which Phi-3 began; it goes before the dict's."""
    key = "original_max_position_embeddings"
    top, inside = model.given.get(key, model.known["config"].get(key)), entry.get(key)
    if top is not None and not layer and entry["rope_type"] in ("llama3", "yarn", "longrope"):
        if inside not in (None, top) and not model.follow:
            raise ValueError(
                f"{key} is {top}, but the rotary dict says {inside}; it needs to be said once, or the same."
            )
        entry[key] = top
    longest, said = model.given.get("max_position_embeddings"), entry.pop("max_position_embeddings", None)
    if said is not None and longest is not None and said != longest and not model.follow:
        raise ValueError(
            f"max_position_embeddings is {longest}, but the rotary dict says {said}; it needs to be said once, or "
            "the same."
        )
