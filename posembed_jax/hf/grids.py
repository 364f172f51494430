"""Which number of a position turns which channels: RoPE's axes, from what is known of a model's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from posembed_jax.schemes.axes import Axes

Values = Mapping[str, Any]

MEMORY_HEADS = "half_of_memory_head"


class Grid(NamedTuple):
    """Where the numbers of a position go: RoPE's settings of that name."""

    dim: int
    axes: Axes | None
    blocks: int = 1


def grid_of(
    labels: Values, config: Values, head_dim: int | None, fraction: float, sizes: tuple[int, ...] | None
) -> Grid:
    """Which channels of a head turn, and by which numbers.

    fraction: of the channels that turn. sizes: the sections of the rotary dict.
    """
    recompose, forward = labels["recompose"], labels["forward"]
    if labels["axial"] == MEMORY_HEADS:
        width = memory_head_width(config)
    elif labels["axial"] == "half_head_of_embed_dim" and head_dim is None:
        width = config["embed_dim"] // heads_of(config)
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
            f"the sections of rope_parameters are {list(sizes)}; they need to sum to {dim // 2}, half of the {dim} "
            "channels of a head that turn."
        )
    return Grid(dim, SECTIONS[recompose](sizes))


def heads_of(config: Values) -> int:
    return config.get("num_attention_heads") or config["num_heads"]


def memory_head_width(config: Values) -> int:
    """Of the attention of SAM 2's videos to earlier pictures."""
    share = config["memory_attention_downsample_rate"] * config["memory_attention_num_attention_heads"]
    return config["memory_attention_hidden_size"] // share


def head_width(config: Values, head_dim: int | None) -> int:
    return head_dim or config["hidden_size"] // heads_of(config)


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


SECTIONS = {
    "mrope_sections": Axes.sections,
    "mrope_sections_pairs": Axes.sections,
    "mrope_interleaved": Axes.interleaved,
    "ernie_hw_then_t_pairs": _ernie,
    "xdrope_sections": _xdrope,
}
