"""Makes golden cases of tables and convolutions that are added to tokens, with transformers' own classes.

    python tests/golden/make_tables.py DIR
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch. Pixels are zero, so that a patch is the bias of its projection.
"""

import argparse
import logging
import pathlib
import warnings

import torch
from make_content import config, of, parameters, random, save

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SQUARE = SMALL | {"image_size": 16, "patch_size": 4}
MASK = torch.ones(2, 4, 5, dtype=torch.bool)
MASK[0, :, 4] = False
MASK[1, 2:] = False


def first(out):
    """The tokens of what a module gives: a tensor, a tuple, or an output with names."""
    return out if torch.is_tensor(out) else next(iter(out.values() if hasattr(out, "values") else out))


def pictures(folder):
    absolute, interpolate = {"use_absolute_position_embeddings": True}, {"interpolate_pos_encoding": True}
    swin = {"embed_dim": 8, "image_size": 16, "patch_size": 4, "use_absolute_embeddings": True}
    for model_type, name, module, settings, call, size in (
        (
            "yolos",
            "YolosEmbeddings",
            "yolos",
            SQUARE | {"image_size": [16, 16], "num_detection_tokens": 3},
            {},
            (32, 24),
        ),
        ("dpt", "DPTViTEmbeddings", "dpt", SQUARE, {}, (32, 24)),
        ("tipsv2_vision_model", "Tipsv2VisionEmbeddings", "tipsv2", SQUARE, {}, (32, 24)),
        ("vit_mae", "ViTMAEEmbeddings", "vit_mae", SQUARE, interpolate, (32, 24)),
        ("vit", "ViTEmbeddings", "vit", SQUARE | {"image_size": [16, 24]}, {}, (16, 24)),
        ("beit", "BeitEmbeddings", "beit", SQUARE | absolute, {}, (16, 16)),
        ("swin", "SwinEmbeddings", "swin", swin, interpolate, (32, 24)),
    ):
        settings = config(model_type, **settings)
        made, pixels = random(getattr(of(module), name)(settings)), torch.zeros(1, 3, *size)
        arrays = {"in.pixel_values": pixels, "out.out": first(made(pixels, **call)), **parameters(made)}
        save(folder, "abs_interp2d", model_type, "table", settings, f"{name}(config)(pixel_values)", arrays)
    settings = config("siglip2_vision_model", **SMALL, num_patches=16, patch_size=4)
    made, shapes = random(of("siglip2").Siglip2VisionEmbeddings(settings)), torch.tensor([[2, 6], [5, 3], [4, 4]])
    pixels = torch.zeros(3, 16, 48)
    arrays = {"in.pixel_values": pixels, "in.spatial_shapes": shapes, "out.out": made(pixels, shapes)}
    ran = "Siglip2VisionEmbeddings(config)(pixel_values, spatial_shapes)"
    save(folder, "abs_interp2d", "siglip2_vision_model", "native", settings, ran, arrays | parameters(made))


def buckets(folder):
    settings = config("smolvlm_vision", **SMALL, image_size=20, patch_size=4)
    made, pixels = random(of("smolvlm").SmolVLMVisionEmbeddings(settings)), torch.zeros(2, 3, 16, 20)
    arrays = {"in.patch_attention_mask": MASK, "out.out": made(pixels, MASK), **parameters(made)}
    ran = "SmolVLMVisionEmbeddings(config)(pixel_values, patch_attention_mask)"
    save(folder, "abs_bucket2d", "smolvlm_vision", "buckets", settings, ran, arrays)


def tiles(folder):
    settings = config("mllama_vision_model", hidden_size=8, image_size=8, patch_size=4)
    made, x = random(of("mllama").MllamaPrecomputedPositionEmbedding(settings)), torch.randn(3, 4, 5, 8)
    ids = torch.tensor([1, 0, 3])
    arrays = {"in.x": x, "in.aspect_ratio_ids": ids, "out.out": made(x, ids), **parameters(made)}
    ran = "MllamaPrecomputedPositionEmbedding(config)(x, aspect_ratio_ids)"
    save(folder, "abs_tiles", "mllama_vision_model", "gated", settings, ran, arrays)


def boxes(folder):
    settings = config("layoutlm", **SMALL, vocab_size=12, max_position_embeddings=16, max_2d_position_embeddings=20)
    made, ids = random(of("layoutlm").LayoutLMEmbeddings(settings)), torch.tensor([[3, 5, 7]])
    bbox = torch.tensor([[[0, 1, 4, 9], [2, 3, 19, 5], [7, 7, 7, 8]]])
    arrays = {"in.input_ids": ids, "in.bbox": bbox, "out.out": made(ids, bbox), **parameters(made)}
    save(folder, "abs_learned_2d", "layoutlm", "boxes", settings, "LayoutLMEmbeddings(config)(input_ids, bbox)", arrays)


def convolutions(folder):
    small = {"hidden_size": 16, "num_conv_pos_embedding_groups": 4}
    for model_type, name, kernel, x in (
        ("hubert", "Hubert", 5, torch.randn(1, 11, 16)),
        ("sew-d", "SEWD", 6, torch.randn(1, 16, 11)),
    ):
        settings = config(model_type, **small, num_conv_pos_embeddings=kernel)
        made = random(getattr(of(model_type.replace("-", "_")), f"{name}PositionalConvEmbedding")(settings))
        arrays = {"in.x": x, "out.out": made(x), **parameters(made)}
        save(folder, "conv_pos", model_type, f"kernel{kernel}", settings, f"{name}PositionalConvEmbedding", arrays)


def sinusoids(folder):
    made = of("deformable_detr").DeformableDetrSinePositionEmbedding(8, normalize=True)
    out = made(torch.Size([2, 3, 4, 5]), torch.device("cpu"), torch.float32, MASK)
    ran = "DeformableDetrSinePositionEmbedding(8, normalize=True)(shape, device, dtype, mask)"
    save(folder, "sin_2d_detr", "deformable_detr", "half", None, ran, {"in.mask": MASK, "out.norm_mask": out})
    settings = config("dab-detr", hidden_size=16)
    out = of("dab_detr").DabDetrSinePositionEmbedding(settings)(torch.zeros(2, 3, 4, 5), MASK)
    ran = "DabDetrSinePositionEmbedding(config)(pixel_values, pixel_mask)"
    save(folder, "sin_2d_detr", "dab-detr", "mask", settings, ran, {"in.mask": MASK, "out.out": out})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    for make in (pictures, buckets, tiles, boxes, convolutions, sinusoids):
        make(folder)


if __name__ == "__main__":
    main()
