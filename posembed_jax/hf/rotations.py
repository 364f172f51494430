"""One entry of `rope_parameters` and what is known of a model's code -> the RoPE that this model runs.

What differs between models is data: how wide the rotation is, which channels are pairs, and which number of a position
turns which pair. The labels are those of `rotary_types.json`, whose `bodies` say what each of them means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from posembed_jax.hf.keys import FOLLOW, pairs_neighbours
from posembed_jax.hf.rope_parameters import scaling as scaling_of
from posembed_jax.schemes.axes import Axes
from posembed_jax.schemes.length_scaling import LongRoPE
from posembed_jax.schemes.mixed import RoPEMixed
from posembed_jax.schemes.rotary import RoPE

Facts = Mapping[str, Any]
Values = Mapping[str, Any]

MEMORY_HEADS = "half_of_memory_head"
LAST_CHANNELS = "last_channels_tables_to_pairs_float32"


class Grid(NamedTuple):
    """Where the numbers of a position go: RoPE's settings of that name."""

    dim: int
    axes: Axes | None
    blocks: int = 1


def rotation(entry: Values, facts: Facts, config: Values, *, head_dim: int | None, layer: str, follow: bool) -> RoPE:
    """The rotation of one layer type.

    Args:
        entry: its rotary dict, with rope_type and rope_theta.
        facts: of the model type, from rotary_types.json.
        config: the configuration's other values.
        head_dim: of these layers.
        layer: the type of the layers, "" where all are alike.
        follow: do what transformers does with what it does not read, silently.
    """
    labels = facts["modeling"]
    entry = dict(entry)
    if follow and layer:
        entry.pop("truncate", None)  # which transformers reads beside nested entries, not in them
    interleaved = pairs_neighbours(facts)
    if labels.get("apply_switch") == "rope_interleave":
        interleaved = config.get("rope_interleave", True)
    _check_interleaved(entry, labels, follow)
    named = [entry.pop(name, None) for name in SECTION_KEYS]
    sizes = next(filter(None, named), None) or labels.get("mrope_section_default")
    fraction = _fraction(entry, facts, follow)
    if labels["init"] == "llama4_vision":
        return wh_pairs(head_width(config, None), float(entry["rope_theta"]))
    scaling = scaling_of(entry, max_position_embeddings=config.get("max_position_embeddings"))
    grid = _grid(labels, config, head_dim, fraction, tuple(sizes) if sizes else None)
    if grid.axes is not None and len(grid.axes.axis) not in ((grid.dim + 1) // 2, grid.dim):
        raise ValueError(
            f"head_dim is {head_dim} and partial_rotary_factor is {fraction}, so that {grid.dim} channels turn by "
            f"{grid.axes.count} frequencies of each axis; they need to be a multiple of 4."
        )
    if isinstance(scaling, LongRoPE):
        _check_factors(scaling, grid, head_dim, fraction)
    if isinstance(entry["rope_theta"], str):
        raise ValueError(f"rope_theta is {entry['rope_theta']!r}; it needs to be a number.")
    dim, base = grid.dim, float(entry["rope_theta"])
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


def _check_interleaved(entry: dict[str, Any], labels: Facts, follow: bool) -> None:
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


def _fraction(entry: dict[str, Any], facts: Facts, follow: bool) -> float:
    """How much of the head turns. Most models' own rule turns it whole whatever the file says; every scaling asks."""
    proportional = entry["rope_type"] == "proportional"
    fraction = entry.get("partial_rotary_factor") if proportional else entry.pop("partial_rotary_factor", None)
    if fraction is None and entry["rope_type"] == "default":
        fraction = 0.334 if facts["modeling"]["default"] == "partial_per_layer_default_0.334" else None
    if proportional or fraction is None:
        return 1.0
    labels = facts["modeling"]
    whole = labels["axial"] is not None or labels["forward"] == "dinov3" or labels["init"] == "llama4_vision"
    if not whole and not (entry["rope_type"] == "default" and facts["ignores_partial_rotary_factor"]):
        return fraction
    if fraction != 1.0 and not follow:
        raise ValueError(
            f"partial_rotary_factor is {fraction}, which transformers does not read for this model_type with rope_type "
            f"{entry['rope_type']!r}; it needs to be 1.0 or left out. {FOLLOW}"
        )
    return 1.0


def _grid(labels: Facts, config: Values, head_dim: int | None, fraction: float, sizes: tuple[int, ...] | None) -> Grid:
    recompose, forward = labels["recompose"], labels["forward"]
    if labels["axial"] == MEMORY_HEADS:
        width = memory_head_width(config)
    elif labels["axial"] == "half_head_of_embed_dim" and head_dim is None:
        width = config["embed_dim"] // _heads(config)
    else:
        width = head_width(config, head_dim)
    if labels["axial"] is not None:
        return axial(recompose, width)
    dim = int(width * fraction)
    if forward == "dinov3":  # whatever head_dim says
        return axial("hw_twice", head_width(config, None))
    if forward == "efficientloftr":  # over all heads at once: rows and columns in turn
        return Grid(2 * dim, alternating(dim // 2, (0, 1)))
    if forward == "musicflamingo_time":
        return Grid(2 * dim, Axes.blocks(axes=2, count=dim // 2))
    if recompose == "row_col_alternating_twice":
        return Grid(dim, Axes(axis=(0, 1) * (dim // 4), index=tuple(range(dim // 2)), count=dim // 2))
    if recompose is None or sizes is None:
        return Grid(dim, None)
    if recompose == "mrope_interleaved":  # sections end where the pairs do, and time has what the others leave
        count = (dim + 1) // 2
        others = [min(size, len(range(axis, count, len(sizes)))) for axis, size in enumerate(sizes)][1:]
        sizes = (count - sum(others), *others)
    elif sum(sizes) != dim // 2:
        raise ValueError(
            f"the sections of rope_parameters are {list(sizes)}; they need to sum to {dim // 2}, half of the "
            f"{dim} channels of a head that turn, with head_dim {head_dim} and partial_rotary_factor {fraction}."
        )
    return Grid(dim, SECTIONS[recompose](sizes))


def _heads(config: Values) -> int:
    return config.get("num_attention_heads") or config["num_heads"]


def memory_head_width(config: Values) -> int:
    """Of the attention of SAM 2's videos to earlier pictures."""
    share = config["memory_attention_downsample_rate"] * config["memory_attention_num_attention_heads"]
    return config["memory_attention_hidden_size"] // share


def head_width(config: Values, head_dim: int | None) -> int:
    return head_dim or config["hidden_size"] // _heads(config)


def axial(recompose: str, width: int) -> Grid:
    """Rows and columns of a picture, or time as well, each with the same frequencies."""
    count = width // 4
    two = Axes.blocks(axes=2, count=count)
    if recompose == "thw_twice":
        count = width // 3 // 2
        return Grid(6 * count, Axes.blocks(axes=3, count=count))
    if recompose == "h_low_w_high_twice":  # Pixtral: the frequencies of the whole head, every other one to each
        index = (*range(0, width // 2, 2), *range(1, width // 2, 2))
        return Grid(width, Axes(axis=two.axis, index=index, count=width // 2))
    if recompose == "wh_alternating_twice":
        return Grid(4 * count, alternating(count, (1, 0)))
    if recompose.startswith("wh"):
        two = Axes(axis=tuple(1 - a for a in two.axis), index=two.index, count=count)
    return Grid(4 * count, two, blocks=2 if recompose == "h_twice_w_twice" else 1)


def alternating(count: int, order: tuple[int, ...]) -> Axes:
    """Every frequency once for each axis, in turn."""
    index = tuple(i for i in range(count) for _ in order)
    return Axes(axis=order * count, index=index, count=count)


def _ernie(sizes: tuple[int, ...]) -> Axes:
    """Height and width in turn over the high frequencies, then time. sizes are of height, width, time."""
    axis = (1, 2) * sizes[0] + (0,) * sizes[2]
    return Axes(axis=axis, index=tuple(range(len(axis))), count=len(axis))


def _xdrope(sizes: tuple[int, ...]) -> Axes:
    """Sections of doubled sizes over the channels, not the pairs: the two channels of a pair may be of two axes."""
    axis = tuple(a for a, size in enumerate(sizes) for _ in range(2 * size))
    return Axes(axis=axis, index=tuple(range(sum(sizes))) * 2, count=sum(sizes))


SECTION_KEYS = ("mrope_section", "xdrope_section")
SECTIONS = {
    "mrope_sections": Axes.sections,
    "mrope_sections_pairs": Axes.sections,
    "mrope_interleaved": Axes.interleaved,
    "ernie_hw_then_t_pairs": _ernie,
    "xdrope_sections": _xdrope,
}


def rotates_values(facts: Facts, config: Values) -> bool:
    """Whether what turns queries and keys turns values as well; RoFormer's file may ask for it."""
    label = facts["modeling"]["apply"] or ""
    return label.endswith("_and_values") and bool(config.get("rotary_value", label == "whole_and_values"))


def without_dict(facts: Facts) -> bool:
    """Whether a model takes its theta, if any, from another place than a rotary dict."""
    return facts["modeling"]["init"] in WITHOUT or facts["modeling"]["init"] is None


WITHOUT = ("conformer", "clvp", "dinov3", "default_only_stored", "lightglue")


def reads_no_head_dim(facts: Facts) -> bool:
    """Whether the head dim of these is hidden_size over the number of heads, whatever a file says."""
    labels = facts["modeling"]
    return labels["init"] in (*WITHOUT, "llama4_vision", None) or labels["axial"] == MEMORY_HEADS


def wh_pairs(width: int, base: float) -> RoPE:
    grid = axial("wh_pairs", width)
    return RoPE(dim=grid.dim, layout="interleaved", base=base, axes=grid.axes)


def without_parameters(facts: Facts, config: Values) -> RoPE | RoPEMixed | None:
    """The rotation of a model whose configuration has no rotary dict; None where its settings choose another scheme."""
    labels = facts["modeling"]
    kind, chosen = labels["init"] or labels["forward"] or labels["apply"], _chosen(config)
    width, base = head_width(config, None), float(config.get("rope_theta") or 10_000.0)
    if chosen not in (None, "rotary"):
        return None
    if kind == "gptj_sin_then_cos":
        return RoPE(dim=config.get("rotary_dim") or width, layout="interleaved")
    if kind == "roformer_sin_then_cos":
        return RoPE(dim=width, layout="interleaved")
    if kind == "conformer":
        return RoPE(dim=width, layout="half", base=float(config["rotary_embedding_base"]))
    if kind == "clvp":
        return RoPE(dim=max(config["projection_dim"] // (2 * _heads(config)), 32), layout="half")
    if kind == "dinov3":
        return RoPE(dim=width, layout="half", base=base, fractional=True, axes=axial("hw_twice", width).axes)
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
