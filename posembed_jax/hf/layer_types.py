"""Of which type each layer is: by the list of the file, or by the rule of its model type over other keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.expressions import evaluate, names_in
from posembed_jax.hf.keys import FOLLOW
from posembed_jax.hf.model import Model

Values = Mapping[str, Any]
OLDER = {
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
    "mamba": "linear_attention",
    "qwen_sparse_attention": "indexed_attention",
}
# Of one of these a rule makes all types: a list beside it says the same, or the file contradicts itself.
PATTERNS = {
    "attention_windows",
    "compress_ratios",
    "full_attention_interval",
    "full_attn_idxs",
    "global_attn_every_n_layers",
    "layer_group_size",
    "sliding_window_pattern",
}
ALL_PATTERNS = PATTERNS | {"attn_layer_indices", "block_types"}
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError)


def layer_types_of(model: Model) -> tuple[str, ...]:
    """The type of each layer; () where all of a model type are alike."""
    given, follow, count, rule = model.given, model.follow, model.number_of_layers, model.known["layer_types"]
    names = {**rule.get("reads", {}), **given, "num_hidden_layers": count, "no_rope_layers": no_rope_layers(model)}
    told = given.get("layer_types")
    if told is None:
        kinds = _by_rule(rule, names)
        unread = sorted(key for key in ALL_PATTERNS - {*rule.get("reads", ())} if given.get(key) is not None)
        if unread and len({*kinds}) > 1 and not follow:
            raise ValueError(
                f"config has {unread}, which transformers does not read for this model_type; of which type each layer "
                f"is needs to be said by layer_types. {FOLLOW}"
            )
        return kinds
    if "rule" not in rule and (follow or not count):
        return ()  # transformers does not read it
    unknown = sorted({str(kind) for kind in told if OLDER.get(kind, kind) not in rule["known"]})
    if unknown:
        raise ValueError(
            f"layer_types has {unknown}, which this model type does not know; each needs to be one of {rule['known']}."
        )
    longer = evaluate(rule.get("longer_by", 0), {**names, "told": told}) or 0
    if len(told) not in (count, count + longer):
        raise ValueError(
            f"layer_types has {len(told)} names, and num_hidden_layers is {count}; it needs one name for each layer."
        )
    named = [evaluate(rule.get("as_given", "=kind"), names | {"i": i, "kind": told[i]}) for i in range(count)]
    read = tuple(OLDER.get(kind, kind) for kind in named)
    if not follow:
        _check_read([*told[:count]], read, rule, given, names)
    return _by_rule(rule, names) if "computed" in rule else read


def no_rope_layers(model: Model) -> tuple[int, ...]:
    """For each layer 1 where it rotates: of the file, or by an interval; () where the model type has no such list."""
    if "no_rope_layers" not in model.known["keys"]:
        return ()
    count, told = model.number_of_layers, model.given.get("no_rope_layers")
    if told and len(told) != count:
        raise ValueError(f"no_rope_layers is {told}; it needs {count} numbers, as num_hidden_layers is.")
    if told:
        return tuple(told)
    interval = model.values.get("no_rope_layer_interval", 4)
    if not isinstance(interval, int) or interval == 0:
        raise ValueError(f"no_rope_layer_interval is {interval!r}; it needs to be a whole number from 1 on.")
    return tuple(int((i + 1) % interval != 0) for i in range(count))


def _by_rule(rule: Values, names: Values) -> tuple[str, ...]:
    """The types that follow from other keys of the file."""
    count = names["num_hidden_layers"]
    if rule.get("rule") is None:
        return ()
    if rule.get("needs", count) != count:
        raise ValueError(
            f"num_hidden_layers is {count}; without layer_types it needs to be {rule['needs']}, of which "
            "transformers knows the types."
        )
    try:
        return tuple(evaluate(rule["rule"], {**names, "i": i}) for i in range(count))
    except MALFORMED as error:
        read = {key: names[key] for key in sorted(rule.get("reads", {}))}
        raise ValueError(
            f"config has {read}, of which the types of {count} layers cannot be made ({error}); it needs to have "
            "layer_types, or whole numbers from 1 on and lists with a value for each layer."
        ) from error


def _check_read(told: list[str], read: tuple[str, ...], rule: Values, given: Values, names: Values) -> None:
    """Whether transformers reads the list as it stands, and no other key says something else."""
    if "forces" in rule and told and OLDER.get(told[-1], told[-1]) != read[-1]:
        raise ValueError(
            f"layer_types ends with {told[-1]!r}, of which transformers makes {read[-1]!r} for this model type; it "
            f"needs to say so. {FOLLOW}"
        )
    reads = rule.get("reads", {})
    beside = {key for key in PATTERNS & names_in(rule.get("rule")) if given.get(key) not in (None, reads[key])}
    if "computed" in rule:
        beside |= {*reads}
    elif not beside:
        return
    try:
        by_rule = _by_rule(rule, names)
    except ValueError:  # as of EXAONE 4's "LLLG", which stands beside a list that says the same
        return
    if by_rule != read:
        others = {key: names[key] for key in sorted(beside)}
        raise ValueError(
            f"layer_types is {told}, but by the model type{f' and {others}' if others else ''} the layers are "
            f"{[*by_rule]}; it needs to be said once, or the same. {FOLLOW}"
        )
