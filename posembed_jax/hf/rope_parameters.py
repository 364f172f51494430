"""The dict `rope_parameters` (once `rope_scaling`) of transformers' configurations <-> scalings of RoPE.

Strict: a key that its type does not know is an error, not a silently other model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from posembed_jax.schemes.length_scaling import DynamicNTK, LongRoPE, longrope_factor
from posembed_jax.schemes.scaling import NTK, Linear, Llama3, Proportional, Scaling, YaRN

# What says where and how fast, not how it is scaled; whoever reads the whole configuration reads these.
ELSEWHERE = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved"}
NAMES_OF_TYPE = "rope_type", "type"
LISTS = "short_factor", "long_factor", "mrope_section", "xdrope_section"
LEGACY_TYPES = {"su": "longrope", "mrope": "default"}


class _Type(NamedTuple):
    required: set[str]
    optional: set[str]
    read: Callable[[Mapping[str, Any], int | None], Scaling | None]


def scaling(parameters: Mapping[str, Any], *, max_position_embeddings: int | None = None) -> Scaling | None:
    """The scaling that a flat `rope_parameters` asks for; None for "default".

    Args:
        parameters: `{"rope_type": "linear", "factor": 8.0, ...}`, with `"type"` in older files. Of one layer type.
        max_position_embeddings: of the configuration. "dynamic" needs it, and so do those types that leave out their
            factor or original_max_position_embeddings.

    Raises:
        ValueError: an unknown rope_type or key, a key missing, or a value out of range; the message names it.

    >>> from posembed_jax import hf
    >>> hf.scaling({"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0})
    Linear(factor=8.0)

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/modeling_rope_utils.py.
    """
    check_kinds(parameters)
    names = {parameters[key] for key in NAMES_OF_TYPE if parameters.get(key) is not None} or {"default"}
    kinds = {LEGACY_TYPES.get(name, name) for name in names}
    came = f"parameters is {dict(parameters)}"
    if len(kinds) > 1:
        raise ValueError(f"{came}; it needs one rope type, not {sorted(names)}.")
    kind = kinds.pop()
    if kind == "dynamic" and "alpha" in parameters:
        kind = "ntk_alpha"
    if kind == "longrope" and MSCALES & {*parameters}:
        kind = "longrope_mscale"
    if kind not in TYPES:
        raise ValueError(f"{came}; its rope_type needs to be one of {sorted(set(TYPES) - INNER)}.")
    required, optional, read = TYPES[kind]
    given = {key for key, value in parameters.items() if key not in ELSEWHERE and value is not None}
    if missing := required - given:
        raise ValueError(f"{came}; rope_type {kind!r} needs {sorted(missing)} as well.")
    if unknown := given - required - optional:
        raise ValueError(
            f"{came}; rope_type {kind!r} needs to be without {sorted(unknown)}: it reads {sorted(required | optional)}."
        )
    if unread := _overruled(kind, parameters):
        raise ValueError(
            f"{came}; it needs to be without {sorted(unread)}, which nothing reads: attention_factor goes before them, "
            "and mscale counts together with mscale_all_dim."
        )
    try:
        return read(parameters, max_position_embeddings)
    except ValueError as error:
        raise ValueError(f"{came}: {error}") from error


def check_kinds(parameters: Mapping[str, Any]) -> None:
    """What is not a number needs to be a name or a list of numbers; numbers are checked by the scalings."""
    for key, value in parameters.items():
        if key in NAMES_OF_TYPE and not isinstance(value, str | None):
            raise ValueError(f"{key} is {value!r}; it needs to be the name of a rope type, such as 'default'.")
        if key in LISTS and value is not None and not (value and is_list_of_numbers(value)):
            raise ValueError(f"{key} is {value!r}; it needs to be a list of numbers.")


def is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value)


def only_read(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers reads of a dict that says its rope_type: the rest changes nothing there."""
    kind = LEGACY_TYPES.get(parameters["rope_type"], parameters["rope_type"])
    kind = "ntk_alpha" if kind == "dynamic" and parameters.get("alpha") else kind
    kind = "longrope_mscale" if kind == "longrope" and MSCALES & {*parameters} else kind
    if kind not in TYPES:
        return dict(parameters)
    known = {*TYPES[kind].required, *TYPES[kind].optional, *ELSEWHERE, "xdrope_section"} - {"type"}
    known -= _overruled(kind, parameters)
    return {key: value for key, value in parameters.items() if key in known}


def _overruled(kind: str, parameters: Mapping[str, Any]) -> set[str]:
    """Keys that this type reads, but not beside the others that are there."""
    told = {key for key, value in parameters.items() if value}
    if "attention_factor" in told:
        return told & {"yarn": {"mscale", "mscale_all_dim"}, "longrope": {"factor"}}.get(kind, set())
    alone = kind == "yarn" and not {"mscale", "mscale_all_dim"} <= told
    # an mscale of 1 is what YaRN has without any
    return {key for key in ("mscale", "mscale_all_dim") if alone and key in told and parameters[key] != 1.0}


def _original(parameters: Mapping[str, Any], longest: int | None) -> int:
    found = parameters.get("original_max_position_embeddings")
    return _needed(longest, "original_max_position_embeddings") if found is None else found


def factor_of(parameters: Mapping[str, Any], longest: int | None) -> float:
    """That of the file, or how much longer the model reaches than it was trained."""
    if (factor := parameters.get("factor")) is not None:
        return factor
    return _needed(longest, "factor") / _original(parameters, longest)


def _needed(longest: int | None, name: str) -> int:
    if longest is None:
        raise ValueError(f"max_position_embeddings is None; without {name} in parameters it needs to be given.")
    return longest


def _dynamic(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    return DynamicNTK(factor=parameters["factor"], original_length=_needed(longest, "an original length"))


def _yarn(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    if parameters.get("factor") is None and parameters.get(ORIGINAL) is None:  # which would be a factor of 1
        raise ValueError(f"parameters is {dict(parameters)}; rope_type 'yarn' needs factor or {ORIGINAL} as well.")
    # of the first, transformers reads 0 as not given, and DeepSeek's files have it
    knobs = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    given = {name: parameters[name] for name in knobs if parameters.get(name)}
    given |= {"attention_factor": told} if (told := parameters.get("attention_factor")) is not None else {}
    given |= {"truncate": parameters["truncate"] or False} if "truncate" in parameters else {}  # null is False there
    return YaRN(factor=factor_of(parameters, longest), original_length=_original(parameters, longest), **given)


def _longrope(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    original = _original(parameters, longest)
    amplitude = parameters.get("attention_factor")
    return LongRoPE(
        short_factor=tuple(parameters["short_factor"]),
        long_factor=tuple(parameters["long_factor"]),
        original_length=original,
        attention_factor=longrope_factor(factor_of(parameters, longest), original) if amplitude is None else amplitude,
    )


def _longrope_mscale(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    """Phi-3.5-MoE's: the amplitude, too, is one up to the original length, another beyond."""
    return LongRoPE(
        short_factor=tuple(parameters["short_factor"]),
        long_factor=tuple(parameters["long_factor"]),
        original_length=_original(parameters, longest),
        attention_factor=parameters["short_mscale"],
        long_attention_factor=parameters["long_mscale"],
    )


def _llama3(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    return Llama3(
        factor=parameters["factor"],
        low_freq_factor=parameters["low_freq_factor"],
        high_freq_factor=parameters["high_freq_factor"],
        original_length=_original(parameters, longest),
    )


def _proportional(parameters: Mapping[str, Any], longest: int | None) -> Scaling:
    fraction = parameters.get("partial_rotary_factor")
    return Proportional(fraction=1.0 if fraction is None else fraction, factor=parameters.get("factor") or 1.0)


ORIGINAL = "original_max_position_embeddings"
MSCALES = {"short_mscale", "long_mscale"}
YARN_KNOBS = {"factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
TYPES = {
    "default": _Type(set(), set(), lambda parameters, longest: None),
    "axial": _Type(set(), set(), lambda parameters, longest: None),  # of several axes, which the model's kind says
    "linear": _Type({"factor"}, set(), lambda parameters, longest: Linear(factor=parameters["factor"])),
    "dynamic": _Type({"factor"}, {ORIGINAL}, _dynamic),
    # Hunyuan's files carry YaRN's keys, which its model does not read
    "ntk_alpha": _Type({"alpha"}, YARN_KNOBS, lambda parameters, longest: NTK(factor=parameters["alpha"])),
    "yarn": _Type(set(), YARN_KNOBS | {"finetuned"}, _yarn),
    "longrope": _Type({"short_factor", "long_factor"}, {ORIGINAL, "factor", "attention_factor"}, _longrope),
    "longrope_mscale": _Type({"short_factor", "long_factor", *MSCALES}, {ORIGINAL}, _longrope_mscale),
    "llama3": _Type({"factor", "low_freq_factor", "high_freq_factor"}, {ORIGINAL}, _llama3),
    "proportional": _Type(set(), {"factor"}, _proportional),
}


INNER = {"ntk_alpha", "longrope_mscale"}  # told from "dynamic" and "longrope" by their keys
# scaling -> its rope_type, and those fields that have another name there, or none
NAMES: dict[type, tuple[str, dict[str, str | None]]] = {
    type(None): ("default", {}),
    Linear: ("linear", {}),
    NTK: ("dynamic", {"factor": "alpha"}),
    DynamicNTK: ("dynamic", {"original_length": None}),
    YaRN: ("yarn", {"original_length": ORIGINAL}),
    LongRoPE: ("longrope", {"original_length": ORIGINAL}),
    Llama3: ("llama3", {"original_length": ORIGINAL}),
    Proportional: ("proportional", {"fraction": "partial_rotary_factor"}),
}


def rope_parameters(scaling: Scaling | None, *, base: float) -> dict[str, Any]:
    """The `rope_parameters` of a scaling: `hf.scaling` of it is the scaling again.

    "dynamic" has no place for its original length: it is the configuration's max_position_embeddings.

    base: RoPE's, `rope_theta` there.

    >>> import posembed_jax as pe
    >>> from posembed_jax import hf
    >>> hf.rope_parameters(pe.Linear(factor=8.0), base=10_000.0)
    {'rope_type': 'linear', 'rope_theta': 10000.0, 'factor': 8.0}
    """
    if type(scaling) not in NAMES:
        raise TypeError(f"scaling is {scaling}; it needs to be one that transformers has, or None.")
    kind, names = NAMES[type(scaling)]
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": base}
    if isinstance(scaling, LongRoPE) and scaling.long_attention_factor is not None:
        names = {**names, "attention_factor": "short_mscale", "long_attention_factor": "long_mscale"}
    for name, value in vars(scaling).items() if scaling else ():
        key = names.get(name, name)
        if key is not None and value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
