"""One entry of `rope_parameters` and what is known of a model's code -> the RoPE that this model runs.

What differs between models is data: how wide the rotation is, which channels are pairs, and which number of a position
turns which pair. The labels are those of `rotary_types.json`, whose `bodies` say what each of them means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.found import Rotations
from posembed_jax.hf.grids import SECTIONS, Grid, grid_of, head_width, heads_of
from posembed_jax.hf.heads import reads_no_head_dim, says_what_turns
from posembed_jax.hf.keys import FOLLOW, pairs_neighbours
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import has_own_heads
from posembed_jax.hf.rope_parameters import scaling as scaling_of
from posembed_jax.schemes.axes import Axes
from posembed_jax.schemes.length_scaling import DynamicNTK, LongRoPE
from posembed_jax.schemes.mixed import RoPEMixed
from posembed_jax.schemes.rotary import RoPE
from posembed_jax.schemes.scaling import NTK, Proportional, YaRN

Values = Mapping[str, Any]

SECTION_KEYS = ("mrope_section", "xdrope_section")
LAST_CHANNELS = "last_channels_tables_to_pairs_float32"


def rotation(entry: Values, model: Model, *, head_dim: int | None, layer: str) -> RoPE:
    """The rotation of one layer type.

    Args:
        entry: its rotary dict, with rope_type and rope_theta.
        head_dim: of these layers.
        layer: the type of the layers, "" where all are alike.
    """
    labels, config = model.code, model.values
    entry = dict(entry)
    if model.follow and layer:
        entry.pop("truncate", None)  # which transformers reads beside nested entries, not in them
    interleaved = pairs_neighbours(labels)
    if labels.get("apply_switch") == "rope_interleave":
        interleaved = config.get("rope_interleave", True)
    _check_interleaved(entry, labels, model.follow)
    named = {name: told for name in SECTION_KEYS if (told := entry.pop(name, None))}
    if named and labels["recompose"] not in SECTIONS and not model.follow:
        raise ValueError(
            f"rope_parameters has {named}, which transformers does not read for this model_type; it needs to be "
            f"without. {FOLLOW}"
        )
    sizes = next(iter(named.values()), labels.get("mrope_section_default"))
    fraction = _fraction(entry, model)
    if labels["init"] == "llama4_vision":
        grid = _grid(labels, config, None, 1.0, None)
        base = float(entry["rope_theta"]) ** grid.stretch
        return RoPE(dim=grid.dim, layout="interleaved", base=base, axes=grid.axes)
    scaling = scaling_of(entry, max_position_embeddings=config.get("max_position_embeddings"))
    grid = _grid(labels, config, head_dim, fraction, tuple(sizes) if sizes else None)
    if grid.dim % 2 and isinstance(scaling, DynamicNTK | NTK | Proportional | YaRN):
        raise ValueError(
            f"rope_parameters has rope_type {entry['rope_type']!r}, but an odd number of channels turn, {grid.dim}; it "
            "needs to be even: by head_dim and partial_rotary_factor."
        )
    if isinstance(scaling, LongRoPE):
        _check_factors(scaling, grid, head_dim, fraction)
    dim, base = grid.dim, float(entry["rope_theta"]) ** grid.stretch
    if dim % 2:  # transformers makes one frequency more, over the odd width
        dim, base = dim + 1, base ** ((dim + 1) / dim)
    return RoPE(
        dim=dim,
        layout="interleaved" if interleaved else "half",
        base=base,
        rotated="last" if labels["apply"] == LAST_CHANNELS else "first",
        learned=labels["forward"] == "half_tables_learned_alpha",
        fractional=labels["forward"] in ("dinov3", "musicflamingo_time"),
        scaling=scaling,
        axes=grid.axes,
        blocks=grid.blocks,
        clockwise=labels["rotate"] == "half_negated",
    )


def _grid(labels: Values, config: Values, head_dim: int | None, fraction: float, sizes: tuple[int, ...] | None) -> Grid:
    told = f"head_dim is {head_dim}" if head_dim else f"hidden_size is {config.get('hidden_size')}"
    told += f", num_attention_heads {config.get('num_attention_heads')}" if not head_dim else ""
    told += f" and partial_rotary_factor is {fraction}"
    try:
        grid = grid_of(labels, config, head_dim, fraction, sizes)
    except ValueError as error:
        raise ValueError(f"{told}: {error}") from error
    if grid.dim < 1 or (grid.axes and len(grid.axes.axis) not in ((grid.dim + 1) // 2, grid.dim)):
        raise ValueError(
            f"{told}, so that {grid.dim} channels turn; they need to be at least 1, and a multiple of 4 where "
            "there are rows and columns."
        )
    return grid


def _check_interleaved(entry: dict[str, Any], labels: Values, follow: bool) -> None:
    """Whether the axes of M-RoPE take turns is the model's, whatever its file says."""
    own = labels["recompose"] == "mrope_interleaved"
    for key in ("mrope_interleaved", "interleaved"):
        told = entry.pop(key, None)
        if told not in (None, own) and not follow:
            raise ValueError(
                f"{key} is {told}, but the sections of this model_type are {'' if own else 'not '}interleaved; it "
                f"needs to be {own} or left out. {FOLLOW}"
            )


def _check_factors(scaling: LongRoPE, grid: Grid, head_dim: int | None, fraction: float) -> None:
    count = grid.axes.count if grid.axes else (grid.dim + 1) // 2
    for name in ("short_factor", "long_factor"):
        if len(getattr(scaling, name)) != count:
            raise ValueError(
                f"{name} has {len(getattr(scaling, name))} numbers; it needs {count}, half of the channels of a head "
                f"that turn, with head_dim {head_dim} and partial_rotary_factor {fraction}."
            )


def _fraction(entry: dict[str, Any], model: Model) -> float:
    """How much of the head turns. Most models' own rule turns it whole whatever the file says; every scaling asks."""
    proportional = entry["rope_type"] == "proportional"
    fraction = entry.get("partial_rotary_factor") if proportional else entry.pop("partial_rotary_factor", None)
    labels = model.code
    if fraction is None and entry["rope_type"] == "default":
        fraction = 0.334 if labels["default"] == "partial_per_layer_default_0.334" else None
    if proportional or fraction is None:
        return 1.0
    whole = labels["axial"] is not None or labels["forward"] == "dinov3" or labels["init"] == "llama4_vision"
    whole |= "alpha" in entry  # Hunyuan's, which its models ask for the base alone
    if not whole and not (entry["rope_type"] == "default" and model.known["ignores_partial_rotary_factor"]):
        return fraction
    if fraction != 1.0 and not (model.follow or says_what_turns(fraction, model)):
        raise ValueError(
            f"partial_rotary_factor is {fraction}, which transformers does not read for this model_type where "
            f"rope_parameters (or rope_scaling) has rope_type {entry['rope_type']!r}; it needs to be 1.0 or left out. "
            f"{FOLLOW}"
        )
    return 1.0


def rotates_values(model: Model) -> bool:
    """Whether what turns queries and keys turns values as well; RoFormer's file may ask for it."""
    label = model.code["apply"] or ""
    return label.endswith("_and_values") and bool(model.values.get("rotary_value", label == "whole_and_values"))


def without_parameters(model: Model) -> RoPE | RoPEMixed | None:
    """The rotation of a model whose configuration has no rotary dict; None where its settings choose another scheme."""
    labels, config = model.code, model.values
    kind, chosen = labels["init"] or labels["forward"] or labels["apply"], _chosen(config)
    width, base = head_width(labels, config, None), float(config.get("rope_theta") or 10_000.0)
    if chosen not in (None, "rotary"):
        return None
    if kind == "gptj_sin_then_cos":
        return RoPE(dim=config.get("rotary_dim") or width, layout="interleaved")
    if kind == "roformer_sin_then_cos":
        return RoPE(dim=width, layout="interleaved")
    if kind == "conformer":
        return RoPE(dim=width, layout="half", base=float(config["rotary_embedding_base"]))
    if kind == "clvp":
        return RoPE(dim=max(config["projection_dim"] // (2 * heads_of(config)), 32), layout="half")
    if kind == "dinov3":
        grid = _grid(labels, config, None, 1.0, None)
        return RoPE(dim=grid.dim, layout="half", base=base**grid.stretch, fractional=True, axes=grid.axes)
    if kind == "default_only_stored":
        return RoPE(dim=width, layout="half", base=base)
    if kind == "lightglue":
        return RoPEMixed(dim=width, layout="interleaved", fractional=True)
    if kind != "axis_blocks_vjepa2":  # the class of another tower of its file: this one has no positions
        return None
    count = width // 3 // 2  # each block's tables are tiled over its channels, whose neighbours are pairs
    blocks = Axes(axis=tuple(a for a in range(3) for _ in range(2 * count)), index=tuple(range(count)) * 6, count=count)
    return RoPE(dim=6 * count, layout="interleaved", axes=blocks)


def _chosen(config: Values) -> str | None:
    return config.get("position_embeddings_type") or config.get("position_embedding_type")


PAIRS_NEIGHBOURS = {  # keys of published files, and what they are where pairs are of neighbouring channels
    "rope_interleaved": True,  # SmolLM
    "rope_interleave": True,  # GLM-5
    "indexer_rope_interleave": True,
    "rotary_emb_interleaved": True,  # Nomic BERT
    "rope_is_neox_style": False,  # PaddleOCR-VL
}
SHARES = ("rotary_pct", "rotary_emb_fraction", "rope_percent")  # of a head: Cohere 2, Nomic BERT, Nemotron
BASES = ("theta", "rotary_emb_base")  # LFM2, Nomic BERT


def so_anyway(model: Model, rotations: Rotations) -> dict[str, Any]:
    """What published files say of the rotation, and transformers does not read, with the values that these models have.

    rotations: those found.
    """
    known, config = model.known, model.values
    ropes = {layer: rope for layer, rope in rotations.items() if isinstance(rope, RoPE)}
    shares, bases = {_share(rope, model) for rope in ropes.values()}, {rope.base for rope in ropes.values()}
    neighbours = {rope.layout == "interleaved" for rope in ropes.values()}
    said: dict[str, set[Any]] = {**{key: shares for key in SHARES}, **{key: bases for key in BASES}}
    said |= {key: {value == pairs for pairs in neighbours} for key, value in PAIRS_NEIGHBOURS.items()}
    said["rotary_dim"] = {rope.dim for rope in ropes.values()}  # Ling
    said["swa_rope_theta"] = {rope.base for layer, rope in ropes.items() if layer == "sliding_attention"}  # MiMo V2
    found = {key: next(iter(values)) for key, values in said.items() if len(values) == 1}
    return found | {
        "rotary": bool(ropes),  # GPT-J
        "use_rotary_pos_emb": bool(ropes),  # Hunyuan
        "position_embedding_xdrope": model.code["recompose"] == "xdrope_sections",
        **({} if has_own_heads(known) else {"swa_head_dim": config.get("head_dim")}),
        "rotary_scaling_factor": 1.0,  # StableLM 2
        "yarn_only_types": known.get("reached", {}).get("rope_scaling"),  # Step 3.5
    }


def _share(rope: RoPE, model: Model) -> float | None:
    """How much of a head turns; None where that is not a share of its channels."""
    if isinstance(rope.scaling, Proportional) or rope.axes is not None:
        return None
    head_dim = None if reads_no_head_dim(model) else model.values.get("head_dim")
    return rope.dim / head_width(model.code, model.values, head_dim)
