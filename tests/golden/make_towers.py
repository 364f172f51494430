"""Make golden cases of whole towers of pictures and videos: every scheme of a tower, from tensors of a checkpoint.

    python tests/golden/make_towers.py DIR [MODEL_TYPE ...]
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch. A tower of random parameters runs on random pixels. `in.PLACE` are its tokens there
with all tables of positions at zero, `out.PLACE` those with this place's own, and `in.grid.PLACE` the sizes of the
picture in tokens. Of a layer of attention there are queries, keys and values, and what it makes of them. `par.*` are
all tensors of positions, by their names in the files of `save_pretrained`.
"""

import dataclasses
import json
import math
import re

import torch
from make_content import config as config_of
from make_content import save
from make_parameters import class_of, names_in_files
from makers import asked

from posembed_jax import hf
from posembed_jax.hf.checkpoint import COMPUTED, POSITIONAL, parameter_names
from posembed_jax.hf.facts import facts

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SQUARE = SMALL | {"image_size": 16, "patch_size": 4}
SAM = SQUARE | {"num_hidden_layers": 2, "global_attn_indexes": [1], "window_size": 2, "output_channels": 4}
SAM |= {"mlp_dim": 8}
EOMT = {"num_blocks": 1, "num_queries": 3, "num_register_tokens": 2, "mlp_ratio": 1, "num_upscale_blocks": 1}
PRETRAINED = SQUARE | {"pretrain_image_size": 12}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower:
    """A configuration, the sizes of what it sees, and where its tokens with positions come by.

    settings: of the configuration.
    pixels: [channels, height, width], with frames or tiles in front.
    tokens: place -> name of a module; what it gives, or with "<" in front what it is given. {} is the place's number.
    grids: place -> sizes in tokens, where it is not what the patch size makes of the pixels.
    attention: place -> name of a layer of attention, with {} for the place's number, and for the layer's within it.
    attended: the sizes that it attends over, where it is not
    window: that of the layers that do not attend over the whole picture.
    runs: the module that runs, where the whole model takes fewer sizes than its tables do.
    call: what else it is called with.
    channels_first: of what is seen.
    """

    settings: dict
    pixels: tuple[int, ...] = (3, 24, 20)
    tokens: dict[str, str]
    patch: tuple[int, ...] = (4, 4)
    grids: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    attention: dict[str, str] = dataclasses.field(default_factory=dict)
    attended: tuple[int, ...] = (3, 5)
    window: tuple[int, ...] = (2, 2)
    runs: str = ""
    call: dict = dataclasses.field(default_factory=dict)
    channels_first: bool = False


RESIZED = {"interpolate_pos_encoding": True}
OWN_SIZE = {"pixels": (3, 16, 16)}
EMBEDDINGS = {"": "embeddings"}
SEEN_BY_LAYERS = {"tokens": {"patches": "<layers.0"}, "attention": {"layers": "layers.{}.attn"}}
SEEN_BY_ENCODER = {
    "tokens": {"patches": "<vision_encoder.layers.0"},
    "attention": {"layers": "vision_encoder.layers.{}.attn"},
}
TOWERS = {
    "got_ocr2_vision": Tower(settings=SAM, **OWN_SIZE, **SEEN_BY_LAYERS),
    "sam_vision_model": Tower(settings=SAM, **OWN_SIZE, **SEEN_BY_ENCODER),
    "sam_hq_vision_model": Tower(settings=SAM, **OWN_SIZE, **SEEN_BY_ENCODER),
    "pp_formulanet_vision": Tower(settings=SAM | {"post_conv_in_channels": 4}, **OWN_SIZE, **SEEN_BY_LAYERS),
    "slanext_vision": Tower(settings=SAM, **OWN_SIZE, **SEEN_BY_LAYERS),
    "deepseek_ocr2_sam_vision_model": Tower(settings=SAM | {"downsample_channels": [4, 4]}, **SEEN_BY_LAYERS),
    "unlimited_ocr_sam_vision_model": Tower(settings=SAM | {"downsample_channels": [4, 4]}, **SEEN_BY_LAYERS),
    "lw_detr_vit": Tower(settings=PRETRAINED | {"num_windows": 1}, tokens=EMBEDDINGS, channels_first=True),
    "vitdet": Tower(
        settings=PRETRAINED
        | {"num_hidden_layers": 2, "window_block_indices": [0], "window_size": 2}
        | {"use_relative_position_embeddings": True},
        tokens={"patches": "embeddings"},
        attention={"layers": "encoder.layer.{}.attention"},
        channels_first=True,
    ),
    "seggpt": Tower(
        settings=PRETRAINED | {"image_size": [24, 20], "merge_index": 0, "intermediate_hidden_state_indices": [0]},
        pixels=(3, 12, 20),
        grids={"patches": (2, 6, 5)},
        tokens={"patches": "embeddings"},
        attention={"layers": "encoder.layers.{}.attention"},
        call={"prompt_pixel_values": torch.ones(1, 3, 12, 20), "prompt_masks": torch.ones(1, 3, 12, 20)},
    ),
    "unlimited_ocr_vision_encoder": Tower(settings=SQUARE, pixels=(8, 6, 5), patch=(1, 1), tokens=EMBEDDINGS),
    "mllama_vision_model": Tower(
        settings=SMALL
        | {"image_size": 8, "patch_size": 4, "attention_heads": 2, "num_global_layers": 1, "max_num_tiles": 3}
        | {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [3, 1]]},
        pixels=(1, 3, 3, 8, 8),
        tokens={
            "patches": "gated_positional_embedding",
            "before": "pre_tile_positional_embedding",
            "behind": "post_tile_positional_embedding",
        },
        grids={"patches": (3, 5), "before": (3, 4), "behind": (3, 8)},
        call={"aspect_ratio_ids": torch.tensor([[3]]), "aspect_ratio_mask": torch.ones(1, 1, 3)},
    ),
    "timesformer": Tower(
        settings=SQUARE | {"num_frames": 3},
        runs="embeddings",
        pixels=(5, 3, 24, 20),
        tokens={"patches": "embeddings", "frames": "embeddings"},
        grids={"patches": (5, 6, 5), "frames": (5, 6, 5)},
    ),
    "videoprism_vision_model": Tower(
        settings=SMALL
        | {"image_size": 16, "tubelet_size": [1, 4, 4], "num_frames": 3}
        | {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1},
        pixels=(2, 3, 8, 20),
        tokens={"patches": "spatial_embeddings", "frames": "temporal_embeddings"},
        grids={"patches": (2, 2, 5), "frames": (2, 2, 5)},
        call=RESIZED,
    ),
    "vivit": Tower(
        settings=SMALL | {"image_size": [8, 12], "tubelet_size": [2, 4, 4], "num_frames": 6},
        pixels=(6, 3, 8, 12),
        tokens=EMBEDDINGS,
        grids={"": (3, 2, 3)},
    ),
    "vitpose_backbone": Tower(
        settings=SQUARE | {"image_size": [24, 16], "patch_size": 8}, pixels=(3, 24, 16), patch=(8, 8), tokens=EMBEDDINGS
    ),
    "eomt": Tower(settings=SQUARE | EOMT, **OWN_SIZE, tokens=EMBEDDINGS),
    "videomt": Tower(settings=SQUARE | EOMT, runs="embeddings", **OWN_SIZE, tokens=EMBEDDINGS),
    "groupvit_vision_model": Tower(
        settings=SQUARE | {"depths": [1], "num_group_tokens": [0], "num_output_groups": [2]},
        runs="vision_model.embeddings",
        tokens={"": "vision_model.embeddings"},
        call=RESIZED,
    ),
    "hiera": Tower(
        settings={"embed_dim": 8, "image_size": [16, 16], "depths": [1, 1], "num_heads": [1, 1], "num_query_pool": 1}
        | {"masked_unit_size": [2, 2], "masked_unit_attention": [True, False]},
        pixels=(3, 24, 40),
        tokens=EMBEDDINGS,
        call=RESIZED,
    ),
    "mgp-str": Tower(settings=SQUARE | {"image_size": [24, 20]}, tokens={"": "mgp_str.embeddings"}),
    "pvt": Tower(
        settings={"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [8, 8]}
        | {"sequence_reduction_ratios": [1, 1], "patch_sizes": [4, 2], "strides": [4, 2]}
        | {"num_attention_heads": [2, 2], "mlp_ratios": [1, 1]},
        pixels=(3, 32, 32),
        tokens={"stages": "encoder.patch_embeddings.{}"},
        grids={"stages.0": (8, 8), "stages.1": (4, 4)},
    ),
    "sam2_hiera_det_model": Tower(
        settings={"hidden_size": 8, "window_positional_embedding_background_size": [3, 4], "blocks_per_stage": [1, 1]}
        | {"window_size_per_stage": [4, 4], "embed_dim_per_stage": [8, 16], "num_attention_heads_per_stage": [1, 1]}
        | {"num_query_pool_stages": 1, "global_attention_blocks": [], "image_size": [32, 48]},
        pixels=(3, 32, 48),
        tokens={"patches": "<blocks.0", "windows": "<blocks.0"},
    ),
    "sam3_vit_model": Tower(
        settings=PRETRAINED | {"image_size": 24, "window_size": 6, "global_attn_indexes": [0]},
        pixels=(3, 24, 24),
        tokens=EMBEDDINGS,
    ),
}


def caught(model, tower, places, pixels):
    """place -> the tokens that come by there, in a run of the model."""
    found, hooks = {}, []

    def keep(place, *tensors):
        def hook(module, arguments, *outputs):
            thing = (outputs or arguments)[0]
            while not torch.is_tensor(thing):
                thing = thing[0]
            found.setdefault(place, thing)

        return hook

    for place in places:
        word, _, number = place.partition(".")
        name = tower.tokens[word].replace("{}", number)
        module = model.get_submodule(name.removeprefix("<"))
        given = name.startswith("<")
        hooks.append((module.register_forward_pre_hook if given else module.register_forward_hook)(keep(place)))
    with torch.no_grad():
        model.get_submodule(tower.runs)(pixels, **tower.call)
    for hook in hooks:
        hook.remove()
    if tower.channels_first:
        found = {place: x.movedim(1, -1) for place, x in found.items()}
    return {place: x.reshape(-1, x.shape[-1]) for place, x in found.items()}


def tensors_of(place, names):
    """The names of a place's tensors in the files."""
    word, _, number = place.partition(".")
    known = names.get(place) or names[word]
    return {name.replace("{}", number, 1) for name in known.values()}


def added(model, tower, positions, in_file):
    """Tokens without positions and with those of one place."""
    names = parameter_names()[positions.model_type]["places"]
    own = {place: tensors_of(place, names) for place in positions.additive}
    parameters = {in_file[id(p)]: p for p in model.parameters()}
    kept = {name: parameters[name].detach().clone() for name in set().union(*own.values())}
    pixels = torch.randn(1, *tower.pixels)

    def run(*without):
        with torch.no_grad():
            for name, values in kept.items():
                parameters[name].copy_(0 * values if any(name in own[place] for place in without) else values)
        return caught(model, tower, own, pixels)

    nothing = run(*own)
    arrays = {key("in", place): x for place, x in nothing.items()}
    for place in own:
        arrays[key("out", place)] = run(*(other for other in own if other != place))[place]
        sizes = tuple(n // p for n, p in zip(tower.pixels[-2:], tower.patch, strict=True))
        arrays[key("in.grid", place)] = torch.tensor(tower.grids.get(place, sizes))
    run()
    return arrays


def attended(model, tower, positions):
    """Of each layer: its queries, keys and values `[B, T, N, D]`, and what it makes of them before its last product."""
    arrays = {}
    for place, scheme in positions.biases.items():
        word, _, number = place.partition(".")
        name = re.escape(tower.attention[word].replace("{}", number, 1)).replace(r"\{\}", r"(\d+)")
        sizes = scheme.shape if getattr(scheme, "shape", ()) == tower.window else tower.attended
        for path, layer in model.named_modules():
            if found := re.fullmatch(name, path):
                own = ".".join([place, *found.groups()])
                arrays |= {key(name, own): x for name, x in attention(layer, sizes, scheme.heads).items()}
                arrays[key("in.grid", own)] = torch.tensor(sizes)
    return arrays


def attention(layer, sizes, heads):
    """In a run on random tokens."""
    seen, hooks, apart = [], [], not hasattr(layer, "qkv")
    for linear in (layer.query, layer.key, layer.value) if apart else (layer.qkv,):
        hooks.append(linear.register_forward_hook(lambda module, arguments, output: seen.append(output)))
    if not apart:
        hooks.append(layer.proj.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0])))
    features = (layer.query if apart else layer.qkv).in_features
    with torch.no_grad():
        out = layer(torch.randn(2, *sizes, features))
    for hook in hooks:
        hook.remove()
    *projected, out = (*seen, out[0]) if apart else seen
    query, keys, value = projected if apart else projected[0].chunk(3, dim=-1)
    arrays = {"in.query": query, "in.key": keys, "in.value": value, "out": out}
    return {name: x.reshape(2, math.prod(sizes), heads, -1) for name, x in arrays.items()}


def key(name, place):
    return f"{name}.{place}" if place else name


def main():
    arguments = asked(__doc__, types=True)
    for model_type in arguments.types or TOWERS:
        torch.manual_seed(0)
        tower = TOWERS[model_type]
        settings = config_of(model_type, **tower.settings)
        model = class_of(settings)(settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.4)
        saved = json.loads(settings.to_json_string(use_diff=False))
        positions, in_file = hf.from_config(saved), names_in_files(model)
        words = {place.partition(".")[0] for place in (*positions.additive, *positions.biases)}
        assert words == {row["place"] for row in facts()["others"]["types"][model_type]["places"]}, "not every place"
        arrays = added(model, tower, positions, in_file) | attended(model, tower, positions)
        if "aspect_ratio_ids" in tower.call:
            arrays["in.aspect_ratio_ids"] = tower.call["aspect_ratio_ids"].flatten()
        names = {in_file[id(p)]: p for p in model.parameters()}
        arrays |= {
            f"par.{name}": p for name, p in names.items() if POSITIONAL.search(name) and not COMPUTED.search(name)
        }
        save(arguments.folder, "tower", model_type, "small", settings, f"{type(model).__name__}(config)", arrays)


if __name__ == "__main__":
    main()
