"""Make golden cases of what vision towers add to the patches of pictures of several sizes, with transformers' classes.

    python tests/golden/make_patches.py DIR
    python -m pytest tests/golden --cases DIR

Every parameter but the table is zero, and so are the pixels: what comes out, or goes into the first norm or layer
behind, is what was added. Pictures are given as (frames, height, width) in patches: larger than the table, smaller,
and not square, where the class takes them.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable

import torch
from make_content import config, save
from makers import asked

WIDE = ((1, 2, 6), (1, 6, 4), (1, 4, 4), (2, 2, 2))  # all of an even height and width: blocks of 2 * 2
STILL = WIDE[:3]  # where the class counts frames as pictures, there is one of each
ODD = ((1, 3, 5), (1, 7, 2), (1, 4, 4), (1, 2, 3))
FILM = (*ODD, (3, 2, 3))
SAME = ((1, 4, 4),)
ONE_WINDOW = ((1, 2, 4), (1, 3, 1))  # larger pictures are reordered, window after window
SMALL = {"hidden_size": 8, "intermediate_size": 8, "patch_size": 4}
LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2}
PICTURE = SMALL | LAYERS | {"image_size": 16}
BLOCKS = SMALL | {"depth": 1, "num_heads": 2}
QWEN = BLOCKS | {"num_position_embeddings": 16, "out_hidden_size": 8}
DEEP = QWEN | {"deepstack_visual_indexes": []}
MUSE = SMALL | LAYERS | {"pos_emb_height": 4, "pos_emb_width": 4, "layer_types": ["full_attention"]}


class Before(Exception):
    """What went into a part of the module, which then need not run: tokens, or positions."""


def tokens_of(module, before, *arguments, **keywords):
    """What the module gives, or what goes into its part of that name: of one that rotates, where tokens stand."""

    def stop(part, given, named):
        tensors = [x for x in given if torch.is_tensor(x)]
        raise Before(tensors[-1] if tensors else named["hidden_states"])

    if before is None:
        return module(*arguments, **keywords)
    handle = module.get_submodule(before).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        module(*arguments, **keywords)
    except Before as found:
        return found.args[0]
    finally:
        handle.remove()


def packed(module, settings, grids, before):
    """All pictures in one sequence of patches, `[T, pixels]`."""
    pixels = getattr(settings, "num_channels", 3) * settings.patch_size**2
    pixels *= getattr(settings, "temporal_patch_size", 1) * getattr(settings, "patch_temporal", 1)
    return tokens_of(module, before, torch.zeros(int(grids.prod(1).sum()), pixels), grids)


def patches_of_pixels(module, settings, grids, before):
    pixels = torch.zeros(1, int(grids.prod(1).sum()), 3, settings.patch_size, settings.patch_size)
    return tokens_of(module, before, pixels, grid_thw=grids)


def embedded(module, settings, grids, before):
    return tokens_of(module, before, torch.zeros(int(grids.prod(1).sum()), settings.hidden_size), grids)


def squares(module, settings, grids, before):
    pixels = torch.zeros(int(grids.prod(1).sum()), 3, settings.patch_size, settings.patch_size)
    return tokens_of(module, before, pixels, grids)


def sizes(module, settings, grids, before):
    return tokens_of(module, before, torch.zeros(int(grids.prod(1).sum()), 3 * settings.patch_size**2), grids[:, 1:])


def row_of_patches(module, settings, grids, before):
    pixels = torch.zeros(1, 3, settings.patch_size, settings.patch_size * int(grids.prod(1).sum()))
    return tokens_of(module, before, pixels, target_sizes=grids[:, 1:])


def blocks(module, settings, grids, before):
    """Counted in blocks of patches."""
    merge = settings.spatial_merge_size
    side = settings.patch_size * merge
    pixels = torch.zeros(int(grids.prod(1).sum()) // merge**2, side, side, 3)
    return tokens_of(module, before, pixels, grids // torch.tensor([1, merge, merge]))


def pictures(module, settings, grids, before, **keywords):
    """One picture after the other, as pixels."""
    sides = [tuple(settings.patch_size * int(n) for n in grid[1:]) for grid in grids]
    found = [tokens_of(module, before, torch.zeros(1, 3, *side), **keywords) for side in sides]
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in found])


def any_size(module, settings, grids, before):
    return pictures(module, settings, grids, before, interpolate_pos_encoding=True)


def unfolded(module, settings, grids, before):
    pixels = torch.zeros(1, math.prod(grids[0].tolist()), 3 * settings.patch_size**2)
    return tokens_of(module, before, pixels)


@dataclasses.dataclass(frozen=True)
class Row:
    """The class that has the table, in a file of transformers.models, and how it is given pictures."""

    model_type: str
    code: str
    table: str
    settings: dict
    run: Callable
    grids: tuple
    before: str | None = None
    class_token: str | None = None
    variant: str = "patches"
    mechanism: str = "abs_interp2d"


ROWS = (
    *(
        Row(model_type, code, "pos_embed.weight", settings, packed, WIDE, "blocks.0")
        for model_type, code, settings in (
            ("qwen3_vl_vision", "qwen3_vl.Qwen3VLVisionModel", DEEP),
            ("qwen3_vl_moe_vision", "qwen3_vl_moe.Qwen3VLMoeVisionModel", DEEP),
            ("qwen3_omni_moe_vision_encoder", "qwen3_omni_moe.Qwen3OmniMoeVisionEncoder", DEEP),
            ("qwen3_5_vision", "qwen3_5.Qwen3_5VisionModel", QWEN),
            ("qwen3_5_moe_vision", "qwen3_5_moe.Qwen3_5MoeVisionModel", QWEN),
            ("qwen4_exp_vision", "qwen4_exp.Qwen4ExpVisionModel", QWEN),
            ("cohere_compass_vision", "cohere_compass.CohereCompassVisionModel", DEEP),
        )
    ),
    *(
        Row(model_type, code, "embeddings.position_embedding.weight", settings, packed, STILL, "blocks.0")
        for model_type, code, settings in (
            ("glm4v_vision", "glm4v.Glm4vVisionModel", BLOCKS | {"image_size": 16, "out_hidden_size": 8}),
            ("glm4v_moe_vision", "glm4v_moe.Glm4vMoeVisionModel", BLOCKS | {"image_size": 16, "out_hidden_size": 8}),
            ("glm_image_vision", "glm_image.GlmImageVisionModel", BLOCKS | {"image_size": 16, "spatial_merge_size": 2}),
        )
    ),
    Row(
        "paddleocr_vl_vision",
        "paddleocr_vl.PaddleOCRVisionEmbeddings",
        "position_embedding.weight",
        PICTURE,
        patches_of_pixels,
        FILM,
    ),
    Row(
        "muse_glimmer_vision",
        "muse_glimmer.MuseGlimmerVisionPatchEmbedder",
        "position_embedding_table.weight",
        MUSE,
        packed,
        FILM,
    ),
    Row(
        "muse_spark_vision",
        "muse_spark.MuseSparkVisionPatchEmbedder",
        "position_embedding_table.weight",
        MUSE,
        packed,
        FILM,
    ),
    *(
        Row(
            "hunyuan_vl_vision",
            "hunyuan_vl.HunYuanVLVisionPatchEmbed",
            "position_embedding.weight",
            SMALL | LAYERS | {"max_image_size": 16, "interpolate_mode": mode},
            packed,
            FILM,
            variant=mode,
        )
        for mode in ("bilinear", "bicubic")
    ),
    Row(
        "cosmos3_edge_vision",
        "cosmos3_edge.Cosmos3EdgeVisionEmbeddings",
        "position_embedding.weight",
        SMALL | LAYERS | {"num_patches": 16},
        packed,
        WIDE,
    ),
    Row(
        "kimi_k25_vision",
        "kimi_k25.Kimi_K25VisionPositionEmbeddings",
        "position_embeddings",
        SMALL | LAYERS | {"pos_emb_height": 4, "pos_emb_width": 4},
        embedded,
        FILM,
    ),
    Row(
        "inkling2_vision",
        "inkling2.Inkling2VisionModel",
        "embeddings.position_embedding.weight",
        SMALL | LAYERS | {"posemb_grid_size": 4},
        blocks,
        STILL,
        "pre_layernorm",
        "embeddings.cls_position_embedding",
    ),
    Row(
        "idefics_vision",
        "idefics.vision.IdeficsVisionEmbeddings",
        "position_embedding.weight",
        {"embed_dim": 8, "image_size": 16, "patch_size": 4},
        any_size,
        ODD,
    ),
    Row("radio", "radio.RadioPatchEmbeddings", "position_embedding", SMALL | {"max_img_size": 16}, sizes, ODD),
    *(
        Row(
            "rf_detr_dinov2",
            "rf_detr.RfDetrDinov2Embeddings",
            "position_embeddings",
            SMALL | {"image_size": 16, "num_windows": count},
            pictures,
            grids,
            variant=f"windows{count}",
        )
        for count, grids in ((1, ODD), (2, ((1, 6, 6), (1, 2, 2))))
    ),
    Row(
        "aimv2_vision_model",
        "aimv2.Aimv2VisionEmbeddings",
        "position_embedding.weight",
        PICTURE,
        pictures,
        SAME,
    ),
    Row("ovis2_vision", "ovis2.Ovis2VisionEmbeddings", "position_embedding.weight", PICTURE, pictures, SAME),
    Row(
        "llama4_vision_model",
        "llama4.Llama4VisionModel",
        "positional_embedding_vlm",
        PICTURE,
        pictures,
        SAME,
        "layernorm_pre",
    ),
    Row(
        "molmo2_vision",
        "molmo2.Molmo2VisionModel",
        "positional_embedding",
        SMALL | LAYERS | {"num_position_embeddings": 16, "image_size": [16, 16]},
        unfolded,
        SAME,
        "layers.0",
    ),
    *(
        Row(
            f"{name}_vision",
            f"{name}.{prefix}VisionEmbeddings",
            "position_embedding.weight",
            SMALL | LAYERS | {"image_size": 20},
            row_of_patches,
            ((1, 2, 25), (1, 7, 3), (1, 4, 4)),  # a 25th of 5 and its multiples are where float32 decides
            mechanism="abs_bucket2d",
        )
        for name, prefix in (
            ("minicpmv4_6", "MiniCPMV4_6"),
            ("minicpmv4_7", "MiniCPMV4_7"),
            ("minicpm_ocr", "MiniCPMOcr"),
        )
    ),
)


def module_of(code):
    model, _, name = code.partition(".")
    file, _, name = name.rpartition(".")
    return getattr(importlib.import_module(f"transformers.models.{model}.{file or f'modeling_{model}'}"), name)


def tables_alone(module, names):
    """The module with random numbers in these parameters and zeros in all others."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            torch.nn.init.normal_(parameter) if name in names else torch.nn.init.zeros_(parameter)
    return module.eval()


def learned(folder):
    for row in ROWS:
        settings, names = config(row.model_type, **row.settings), {"par.table": row.table}
        names |= {"par.class_token": row.class_token} if row.class_token else {}
        module, grids = tables_alone(module_of(row.code)(settings), names.values()), torch.tensor(row.grids)
        parameters = dict(module.named_parameters())
        arrays = {"in.grids": grids, "out.out": row.run(module, settings, grids, row.before)}
        arrays |= {name: parameters[own] for name, own in names.items()}
        ran = f"{type(module).__name__}(config)" + (f", what goes into {row.before}" if row.before else "")
        save(folder, row.mechanism, row.model_type, row.variant, settings, ran, arrays)


PLACES = torch.tensor([[[0, 0], [4, 0], [1, 3], [2, 2]], [[3, 1], [0, 4], [-1, -1], [-1, -1]]])  # x, y; -1 is padding


def axial(folder):
    """A table of columns and one of rows, at given places."""
    settings = config("gemma4_vision", **SMALL, **LAYERS, position_embedding_size=5)
    made = tables_alone(module_of("gemma4.Gemma4VisionPatchEmbedder")(settings), ["position_embedding_table"])
    found = made(torch.zeros(2, 4, 48), PLACES, (PLACES == -1).all(-1))
    columns, rows = made.position_embedding_table
    ran = "Gemma4VisionPatchEmbedder(config)(pixel_values, pixel_position_ids, padding_positions)"
    given = {"in.position_ids": PLACES, "par.table_0": columns, "par.table_1": rows}
    save(folder, "abs_learned_2d", "gemma4_vision", "places", settings, ran, given | {"out.out": found})
    sizes = {"mm_embed_dim": 8, "mm_posemb_size": 5, "patch_size": 2, "pooling_kernel_size": 2, "output_proj_dims": 8}
    settings, text = config("gemma4_unified_vision", **sizes), config("gemma4_unified_text", hidden_size=8)
    module = module_of("gemma4_unified.Gemma4UnifiedVisionEmbedder")(settings, text)
    made = tables_alone(module, ["pos_embedding"])
    found = tokens_of(made, "pos_norm", torch.zeros(2, 4, 48), PLACES)
    columns, rows = made.pos_embedding.unbind(1)
    ran = "Gemma4UnifiedVisionEmbedder(config, text_config), what goes into pos_norm"
    given = {"in.position_ids": PLACES, "par.table_0": columns, "par.table_1": rows}
    save(folder, "abs_learned_2d", "gemma4_unified_vision", "places", settings, ran, given | {"out.out": found})


def frames(folder):
    """The table of frames; its first row, which pictures read, is zero."""
    settings = config("kimi_k25_vision", hidden_size=12, num_attention_heads=2, pos_emb_time=6)
    table = module_of("kimi_k25.Kimi_K25VisionPositionEmbeddings")(settings).time_position_embeddings
    assert not table[0].any()
    ran = "Kimi_K25VisionPositionEmbeddings(config).time_position_embeddings[1:]"
    save(folder, "sin_1d", "kimi_k25_vision", "frames", settings, ran, {"out.table": table[1:]})


def rotated(folder):
    """V-JEPA 2 has no class that makes tables: queries, turned where its patches stand."""
    settings = config("vjepa2", hidden_size=40, num_attention_heads=2, crop_size=48, patch_size=16, frames_per_clip=4)
    made = module_of("vjepa2.VJEPA2RopeAttention")(settings, 40, 2)
    q = torch.randn(1, 2, 18, 20, generator=torch.Generator().manual_seed(0))
    turned = made.apply_rotary_embeddings(q, made.get_position_ids(torch.zeros(1, 18, 40)))
    ran = "VJEPA2RopeAttention(config, 40, 2).apply_rotary_embeddings(q, get_position_ids(x))"
    given = {"in.grids": torch.tensor([[2, 3, 3]]), "in.q": q, "out.q_rot": turned}
    save(folder, "rope_vision", "vjepa2", "grid", settings, ran, given)


def qwen(model_type, code, **settings):
    return model_type, code, BLOCKS | {"out_hidden_size": 8} | settings, packed, WIDE, "rotary_pos_emb"


def tower(model_type, code, part="rotary_emb", run=packed, grids=WIDE, **settings):
    return model_type, code, SMALL | LAYERS | settings, run, grids, part


def sized(module, settings, grids, before):
    """Pictures in a padded batch, with their heights and widths in pixels."""
    pixels = torch.zeros(len(grids), 3, *(settings.patch_size * grids[:, 1:].max(0).values).tolist())
    return tokens_of(module, before, pixels, image_sizes=settings.patch_size * grids[:, 1:])


def layers_of_sam(folder):
    """SAM 3's layers stand their patches within windows, or in the whole picture, closer to each other."""
    sizes = {"hidden_size": 32, "image_size": 24, "window_size": 3, "num_hidden_layers": 3, "global_attn_indexes": [1]}
    settings = config("sam3_vit_model", num_attention_heads=2, patch_size=4, pretrain_image_size=12, **sizes)
    layers, arrays = module_of("sam3.Sam3ViTModel")(settings).layers, {}
    for name, layer, side in (("window", layers[0], 3), ("global", layers[1], 6)):
        q = torch.randn(1, 2, side * side, 16, generator=torch.Generator().manual_seed(0))
        cos, sin = layer.rotary_emb(q, layer.position_ids)
        turned = module_of("sam3.apply_rotary_pos_emb_2d")(q, q, cos, sin)[0]
        arrays |= {f"in.grids.{name}": torch.tensor([[1, side, side]]), f"in.q.{name}": q, f"out.q_rot.{name}": turned}
        arrays[f"out.layers.{name}"] = [(one.window_size == 0) == (name == "global") for one in layers]
    ran = "apply_rotary_pos_emb_2d(q, q, *layer.rotary_emb(q, layer.position_ids))"
    save(folder, "rope_vision", "sam3_vit_model", "layers", settings, ran, arrays)


STANDS = (
    qwen("cohere_compass_vision", "cohere_compass.CohereCompassVisionModel", **DEEP),
    qwen("ernie4_5_vl_moe_vision", "ernie4_5_vl_moe.Ernie4_5_VLMoeVisionTransformerPretrainedModel"),
    qwen("exaone4_5_vision", "exaone4_5.Exaone4_5_VisionModel", num_key_value_heads=2),
    qwen("glm4v_vision", "glm4v.Glm4vVisionModel"),
    qwen("glm4v_moe_vision", "glm4v_moe.Glm4vMoeVisionModel"),
    qwen("glm5_next_vision", "glm5_next.Glm5NextVisionModel", projection_intermediate_size=8),
    qwen("glm_ocr_vision", "glm_ocr.GlmOcrVisionModel"),
    qwen("qwen2_vl_vision", "qwen2_vl.Qwen2VisionTransformerPretrainedModel", embed_dim=8),
    qwen("qwen2_5_vl_vision", "qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel"),
    qwen("qwen2_5_omni_vision_encoder", "qwen2_5_omni.Qwen2_5OmniVisionEncoder"),
    qwen("qwen3_vl_vision", "qwen3_vl.Qwen3VLVisionModel", **DEEP),
    qwen("qwen3_vl_moe_vision", "qwen3_vl_moe.Qwen3VLMoeVisionModel", **DEEP),
    qwen("qwen3_omni_moe_vision_encoder", "qwen3_omni_moe.Qwen3OmniMoeVisionEncoder", **DEEP),
    qwen("qwen3_5_vision", "qwen3_5.Qwen3_5VisionModel", **QWEN),
    qwen("qwen3_5_moe_vision", "qwen3_5_moe.Qwen3_5MoeVisionModel", **QWEN),
    qwen("qwen4_exp_vision", "qwen4_exp.Qwen4ExpVisionModel", **QWEN),
    tower(
        "dots3_note_vision_encoder",
        "dots3_note.Dots3NoteVisionModel",
        "rotary_pos_emb",
        mlp_layer_types=["dense"],
        adapter_in_dim=8,
        per_layer_config=None,
    ),
    tower(
        "lfm3_vl_vision",
        "lfm3_vl.Lfm3VlVisionModel",
        "rotary_pos_emb",
        num_key_value_heads=2,
        layer_types=["full_attention"],
    ),
    tower("minimax_m3_vl_vision", "minimax_m3_vl.MiniMaxM3VLVisionModel", image_size=16, hidden_size=16),
    tower("kimi_k25_vision", "kimi_k25.Kimi_K25VisionModel", run=squares, pos_emb_height=4, pos_emb_width=4),
    tower(
        "paddleocr_vl_vision",
        "paddleocr_vl.PaddleOCRVisionTransformer",
        "encoder.rotary_pos_emb",
        patches_of_pixels,
        FILM,
        image_size=16,
    ),
    tower("muse_glimmer_vision", "muse_glimmer.MuseGlimmerVisionModel", grids=ONE_WINDOW, **MUSE),
    tower("muse_spark_vision", "muse_spark.MuseSparkVisionModel", grids=ONE_WINDOW, **MUSE),
    tower("inkling2_vision", "inkling2.Inkling2VisionModel", run=blocks, grids=STILL, posemb_grid_size=4),
    tower("step3p5_vision", "step3p7.Step3p7VisionModel", run=pictures, grids=ODD[:1], image_size=16),
    tower("pixtral", "pixtral.PixtralVisionModel", "patch_positional_embedding", sized, ODD, head_dim=4),
    tower("mlcd", "mlcd.MLCDVisionModel", "vision_rotary_embedding", pictures, ODD[2:3], image_size=16),
)


def standing(folder):
    """Where patches stand for the rotation: what goes into the class that makes its tables."""
    for model_type, code, settings, run, grids, part in STANDS:
        settings = config(model_type, **settings)
        module, grids = tables_alone(module_of(code)(settings), ()), torch.tensor(grids)
        arrays = {"in.grids": grids, "out.position_ids": run(module, settings, grids, part)}
        ran = f"{type(module).__name__}(config), what goes into {part}"
        save(folder, "vision_grid", model_type, "standing", settings, ran, arrays)
    for model_type, code in (
        ("sam2_video", "sam2_video.Sam2VideoMemoryAttention"),
        ("sam3_tracker_video", "sam3_tracker_video.Sam3TrackerVideoMemoryAttention"),
        ("edgetam_video", "edgetam_video.EdgeTamVideoMemoryAttention"),
    ):
        settings = config(model_type)
        settings.memory_attention_rope_feat_sizes = [5, 3]  # width, height
        found, ran = module_of(code).precompute_positions(settings), f"{code}.precompute_positions(config)"
        arrays = {"in.grids": torch.tensor([[1, 3, 5]]), "out.position_ids": found}
        save(folder, "vision_grid", model_type, "standing", settings, ran, arrays)
    made = module_of("gemma4.image_processing_pil_gemma4.Gemma4ImageProcessorPil")(do_resize=False, max_soft_tokens=70)
    found = made(torch.zeros(3, 48, 96).numpy(), return_tensors="pt")["image_position_ids"]
    arrays = {"in.grids": torch.tensor([[1, 3, 6]]), "out.position_ids": found[found[..., 0] >= 0]}
    settings, ran = config("gemma4_vision", **SMALL, **LAYERS), "Gemma4ImageProcessorPil()(image)['image_position_ids']"
    save(folder, "vision_grid", "gemma4_vision", "standing", settings, ran, arrays)


def main():
    folder = asked(__doc__).folder
    for make in (learned, axial, frames, rotated, layers_of_sam, standing):
        make(folder)


if __name__ == "__main__":
    main()
