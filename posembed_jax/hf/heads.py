"""How wide the heads of a model are, and what follows from that."""

from __future__ import annotations

from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.grids import MEMORY_HEADS, has_heads, head_width
from posembed_jax.hf.keys import FOLLOW
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import has_own_heads, own_head
from posembed_jax.hf.top_level import PARTIAL


def with_head_dim(model: Model) -> Model:
    """With the head dim where it follows from other sizes, which a file may not contradict."""
    given, values = model.given, model.values
    if is_what_turns(model):
        return model._replace(values={**values, "head_dim": given.get("head_dim", values["qk_rope_head_dim"])})
    width = None if "head_dim" in given and not _is_computed(model) else _computed(model)
    if width is None:
        return model
    if not model.follow and given.get("head_dim") not in (None, width):
        because = model.derived.get("head_dim", "=the sizes of its attention and the number of heads")
        raise ValueError(
            f"head_dim is {given['head_dim']}, which transformers does not read for this model_type; it needs to be "
            f"{width}, as {because[1:]} have it. {FOLLOW}"
        )
    return model._replace(values={**values, "head_dim": width}) if "head_dim" in values else model


def _is_computed(model: Model) -> bool:
    """Whether the head dim of a file is not the model's: its class, or its attention, makes it of other sizes."""
    known, derived = model.known, "head_dim" in model.derived
    if derived and "sub_configs" in known:  # MusicFlamingo's, of a part
        return False
    if "head_dim_is_computed" in known or reads_no_head_dim(model):
        return True
    return not model.follow and ("attention_computes_head_dim" in known or derived)  # the rotation alone reads it


def _computed(model: Model) -> int | None:
    """The head dim that follows from other sizes, where it does."""
    known, values = model.known, model.values
    if how := model.derived.get("head_dim"):
        parts = {name: model.given.get(name) or {} for name in known.get("sub_configs", ())}
        return evaluate(how, {**values, **parts})
    if not (known["head_dim_follows_hidden_size"] or "head_dim" in model.given) or not has_heads(model.code, values):
        return None
    whole = head_width(model.code, known["config"], None)  # Zamba 2's heads are twice as wide
    return known["config"].get("head_dim", whole) // whole * head_width(model.code, values, None)


def with_derived(model: Model) -> Model:
    """With settings of the softmax scale that follow from sizes, where the file does not say them."""
    told = {"head_dim", PARTIAL, *(key for key, value in model.given.items() if value is not None)}
    derived = {key: how for key, how in model.derived.items() if key not in told}
    sizes = {"head_dim": head_width(model.code, model.values, model.values.get("head_dim"))} if derived else {}
    found = {key: evaluate(how, {**model.values, **sizes}) for key, how in derived.items()}
    return model._replace(values={**model.values, **found})


def head_dim_of(layer: str, model: Model) -> int | None:
    """That of a layer type: its own, that of the part of an MLA head that turns, or the model's."""
    given, kinds = model.given, model.layer_types
    for index, own in (given.get("per_layer_config") or {}).items():
        if layer and int(index) < len(kinds) and kinds[int(index)] == layer and "head_dim" in own:
            return own["head_dim"]
    if has_own_heads(model.known):
        return own_head(layer, given, model.values)[0]
    if layer in model.known.get("layer_head_dims", {}) and "per_layer_config" not in given:
        return given.get("global_head_dim") or model.known["layer_head_dims"][layer]
    if layer == "" and is_what_turns(model):
        return model.values["qk_rope_head_dim"]
    return model.values.get("head_dim")


def reads_no_head_dim(model: Model) -> bool:
    """Whether the head dim of these is hidden_size over the number of heads, whatever a file says."""
    return model.keeps_no_dict or model.init == "llama4_vision" or model.code["axial"] == MEMORY_HEADS


def is_what_turns(model: Model) -> bool:
    """Whether head_dim is that of the part of an MLA head that turns."""
    turning = model.known["config"].get("qk_rope_head_dim")
    return bool(turning) and model.known["config"].get("head_dim") == turning


def says_what_turns(fraction: float | None, model: Model) -> bool:
    """Whether head_dim and a partial factor say together what qk_rope_head_dim says, as Ling's files have it."""
    told, turning = model.given.get("head_dim"), model.values.get("qk_rope_head_dim")
    return "head_dim_is_computed" in model.known and (told or 0) * (fraction or 0) == turning
