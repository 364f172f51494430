"""Which number of a position turns which channels: RoPE's axes, from what is known of a model's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from posembed_jax.schemes.axes import Axes

Values = Mapping[str, Any]

MEMORY_HEADS = "half_of_memory_head"  # of SAM 2's videos to earlier pictures
WHOLE = {"half_head_of_embed_dim": "embed_dim"}  # of all heads
HEADS = ("speech_encoder_attention_heads", "num_attention_heads", "num_heads")  # the first is SeamlessM4T's


class Grid(NamedTuple):
    """Where the numbers of a position go: RoPE's settings of that name.

    stretch: the power of the base, more than 1 where frequencies are those of an odd width, and one more than its half.
    """

    dim: int
    axes: Axes | None
    blocks: int = 1
    stretch: float = 1.0


def grid_of(
    labels: Values, config: Values, head_dim: int | None, fraction: float, sizes: tuple[int, ...] | None
) -> Grid:
    """Which channels of a head turn, and by which numbers.

    fraction: of the channels that turn. sizes: the sections of the rotary dict.
    """
    recompose, forward = labels["recompose"], labels["forward"]
    width = head_width(labels, config, head_dim)
    if labels["axial"] is not None:
        return axial(recompose, width)
    dim = int(width * fraction)
    if forward == "dinov3" or labels["init"] == "llama4_vision":  # whatever head_dim says
        return axial("hw_twice" if forward == "dinov3" else "wh_pairs", head_width(labels, config, None))
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
    return next(config[name] for name in HEADS if config.get(name))


def has_heads(labels: Values, config: Values) -> bool:
    """Whether the width of a head follows from sizes that are there."""
    if labels["axial"] == MEMORY_HEADS:
        return True
    whole = WHOLE.get(labels["axial"], "hidden_size")
    return bool(config.get(whole)) and any(config.get(name) for name in HEADS)


def head_width(labels: Values, config: Values, head_dim: int | None) -> int:
    """head_dim, or, without it, as the sizes of attention have it."""
    if labels["axial"] == MEMORY_HEADS:
        share = config["memory_attention_downsample_rate"] * config["memory_attention_num_attention_heads"]
        return config["memory_attention_hidden_size"] // share
    return head_dim or config[WHOLE.get(labels["axial"], "hidden_size")] // heads_of(config)


def axial(recompose: str, width: int) -> Grid:
    """Rows and columns of a picture, or time as well, each with the same frequencies.

    Where the width is no multiple of 4, transformers' tables are wider than the head: such a RoPE is refused there.
    """
    if width % 2:
        raise ValueError(f"{width} channels turn; they need to be an even number.")
    if recompose == "thw_twice":
        count = width // 3 // 2
        return Grid(6 * count, Axes.blocks(axes=3, count=count))
    if recompose == "h_low_w_high_twice":  # Pixtral: the frequencies of the whole head, every other one to each
        rows, columns = range(0, width // 2, 2), range(1, width // 2, 2)
        axis = (0,) * len(rows) + (1,) * len(columns)
        return Grid(width, Axes(axis=axis, index=(*rows, *columns), count=width // 2))
    half = width // 2  # of each axis
    count = (half + 1) // 2
    axes = Axes.blocks(axes=2, count=count)
    if recompose == "wh_alternating_twice":
        axes = alternating(count, (1, 0))
    elif recompose.startswith("wh"):
        axes = Axes(axis=tuple(1 - a for a in axes.axis), index=axes.index, count=count)
    return Grid(4 * count, axes, blocks=2 if recompose == "h_twice_w_twice" else 1, stretch=2 * count / half)


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
