"""What is found of a model's positions."""

from __future__ import annotations

import dataclasses
from typing import Any

from posembed_jax.contracts import Additive
from posembed_jax.scheme import Scheme
from posembed_jax.schemes.mixed import RoPEMixed
from posembed_jax.schemes.rotary import RoPE
from posembed_jax.schemes.temperature import SteppedTemperature

Rotations = dict[str, RoPE | RoPEMixed | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Positions:
    """Where a transformer puts positions in: what `from_config` found.

    Args:
        model_type: transformers' name.
        rotations: RoPE by layer type, None for layers without positions; one under "" where all layers are alike.
        additive: what is added to tokens or patches, by the place: "" where there is one, else "encoder" and the like.
        biases: what is added to the logits or makes them of positions, by the place; "layers.3" of some layers alone.
        about: what else the model does at a place: see below.
        rotates_values: whether values rotate as well, as keys do (CLVP; RoFormer when its file says so).
        layers: for each layer, its key in rotations, or None for a layer without positions (NoPE).
        softmax_scale: by which the logits q . k are multiplied, or, where layers differ (Dots 3), a dict by their type;
            None where the model's is not a number of its file, as where it is learned (TimesFM 2.5).
        temperature: of the queries, for `attend` and the attention layers, or None; of all layers (Ministral 3, Mistral
            4), or of those that do not rotate (Llama 4).
        position_ids: how positions are made: "tokens", "multimodal" (by mrope.positions), "xdrope" (by
            mrope.xdrope_positions), "canvas" (by mrope.canvas_positions), "grid", "grid_from_1" and "centers" (by
            `patch_positions`), or "times".
        numbering: settings of that function of mrope; None where the file is not of a model of several modalities.
        towers: the parts of a composite by their names in the file, such as "text_config".
        config: the values that all this was read from, with the rotary dict complete; not compared.

    The softmax scale is of `q @ k` with q and k `[..., T, N, D]` as they were rotated. In `about[place]`,

    - position_ids says how tokens are numbered where it is not by `positions.arange`: "padding", by
      `positions.from_mask(mask, padding_position=-1)`; "cells", in each cell anew; "mentions", an entity has the mean
      of the rows of its tokens, which are counted from 0.
    - first is the position of the first token, where it is not 0.
    - shape, of a table for the patches of a picture, is its rows and columns; prefix, how many tokens stand in front.
    - resize is how such a table is stretched to a picture of another shape, which `patch_table` does; merge is the side
      of the blocks that patches come in, windows how many rows and columns of windows they come in, prefix again in
      front of each, and tokens_in_front_without how many tokens in front have no row.
    - axes are those of a table of one axis of several, or of positions of several numbers; order is that of tokens,
      ("row", "column", "frame") where the frames of a patch stand together.
    - neighbours and dilations, one for each layer, are for `masks.neighbourhood`; the dilation divides positions.
    - stored is how the file has a table that is not row after row, zero_at which row is of distance 0 where rows
      are of the query less the key: `load` makes it ours.
    - pixels has the settings of `vision.mask_coordinates`, which makes positions of the mask of real pixels (DETR).
    - of "differences of boxes", added_to "keys": a vector for each pair, of the key's box less the query's, which a
      linear layer brings to a head's size (BROS).
    - table_of: each query makes the table of the bias of its hidden state, by a linear layer (ProphetNet).
    - stride is how far tokens of a place stand apart; without_positions, how many in front have no bias of positions.
    - scale multiplies positions, divided_by divides what is added, zero_padding puts zeros where padding is.
    - bits: the table is rounded to whole numbers of so many (I-BERT); blocks: keys are of so many tokens each (LongT5).
    - axes, of the place "rotation", names the numbers of a patch's position; `patch_positions` makes them. Tokens in
      front that are turned by learned angles have those in a parameter that ends in angles_in_front.
    - convolution has the settings of a `conv_positions` whose result is added, of no other scheme.
    - scaled_with_logits: the bias is added before the softmax scale multiplies; rounded_to: in which dtype it is kept.

    >>> from posembed_jax import hf
    >>> found = hf.from_config({"model_type": "gemma3_text", "num_hidden_layers": 6})
    >>> found.layers[4:], found.rotations["sliding_attention"].base
    (('sliding_attention', 'full_attention'), 10000.0)
    """

    model_type: str
    rotations: Rotations = dataclasses.field(default_factory=dict)
    additive: dict[str, Additive] = dataclasses.field(default_factory=dict)
    biases: dict[str, Scheme] = dataclasses.field(default_factory=dict)
    about: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rotates_values: bool = False
    layers: tuple[str | None, ...] = ()
    softmax_scale: float | dict[str, float] | None = None
    temperature: SteppedTemperature | None = None
    position_ids: str = "tokens"
    numbering: dict[str, Any] | None = None
    towers: dict[str, Positions] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def rotation(self) -> RoPE | RoPEMixed:
        """The rotation of every layer; refused where there is none, or more than one."""
        found = [rotation for rotation in self.rotations.values() if rotation is not None]
        if len(self.rotations) != 1 or not found:
            raise ValueError(
                f"rotations is {self.rotations} and towers is {sorted(self.towers)}; it needs one for all: "
                "take it from rotations[layer type], or from a tower."
            )
        return found[0]
