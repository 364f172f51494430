"""Makes golden cases of tables and convolutions that are added to tokens, with transformers' own classes.

    python tests/golden/make_tables.py DIR
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch. Pixels are zero, so that a patch is the bias of its projection.
"""

import torch
from make_content import config, of, parameters, random, save
from makers import asked

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SIZES = {"hidden_size": 8, "speech_encoder_attention_heads": 2, "t2u_pad_token_id": 2}
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
    settings, mask = config("phi4_multimodal_vision", **SMALL, image_size=20, patch_size=4), torch.ones(2, 3, 25) > 0
    mask[1, 2:], mask[1, :, 7:] = False, False
    made, pixels = random(of("phi4_multimodal").Phi4MultimodalVisionEmbeddings(settings)), torch.zeros(2, 3, 12, 100)
    arrays = {"in.patch_attention_mask": mask, "out.out": made(pixels, mask), **parameters(made)}
    ran = "Phi4MultimodalVisionEmbeddings(config)(pixel_values, patch_attention_mask)"
    save(folder, "abs_bucket2d", "phi4_multimodal_vision", "buckets", settings, ran, arrays)


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


def read_of(table, run):
    """What a table gives while a model runs."""
    seen = []
    hook = table.register_forward_hook(
        lambda module, given, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    run()
    hook.remove()
    return seen[0]


def rows(folder, model_type, variant, settings, name, module, given, table, arrays):
    """The rows that a module reads from its table, given these inputs."""
    found = read_of(module.get_submodule(table), lambda: module(**given))
    arrays = arrays | {"out.out": found, "par.weight": module.get_submodule(table).weight}
    save(folder, "abs_learned", model_type, variant, settings, f"{name}(config)(...), its {table}", arrays)


def texts(folder):
    """Padding on the right, on the left and in between; a token is 1 where it is padding."""
    ids = torch.tensor([[5, 3, 7, 2, 1, 1, 1, 1], [1, 1, 3, 4, 5, 6, 7, 8], [3, 4, 1, 1, 5, 6, 1, 7]])
    padded, types = {"in.attention_mask": ids != 1}, {"token_type_ids": torch.zeros_like(ids)}
    small = SMALL | {"vocab_size": 12, "max_position_embeddings": 16}
    boxes = {"coordinate_size": 1, "shape_size": 2, "max_2d_position_embeddings": 8}
    depth = {"max_depth": 3, "max_xpath_tag_unit_embeddings": 7, "max_xpath_subs_unit_embeddings": 9}
    paths = depth | {"xpath_unit_hidden_size": 2, "tag_pad_id": 6, "subs_pad_id": 8, "pad_token_id": 1}
    in_boxes = {"bbox": torch.zeros(3, 8, 4, dtype=torch.long)}
    for model_type, name, variant, more, given, arrays in (
        ("luke", "LukeEmbeddings", "padded", {}, types, padded),
        ("markuplm", "MarkupLMEmbeddings", "padded", paths, {}, padded),
        ("ibert", "IBertEmbeddings", "padded", {}, {}, padded),
        ("ibert", "IBertEmbeddings", "quantized", {"quant_mode": True}, {}, padded),
        ("esm", "EsmEmbeddings", "padded", {"pad_token_id": 1, "mask_token_id": 11}, {}, padded),
        ("layoutlmv3", "LayoutLMv3TextEmbeddings", "padded", boxes, in_boxes, padded),
        ("lxmert", "LxmertEmbeddings", "rows", {}, types, {}),
    ):
        settings = config(model_type, **(small | more))
        module = random(getattr(of(model_type), name)(settings))
        given = {"input_ids": ids, **given}
        rows(folder, model_type, variant, settings, name, module, given, "position_embeddings", arrays)
    settings = config("gpt_neo", **small, num_layers=1, num_heads=2, attention_types=[[["global"], 1]])
    module = random(of("gpt_neo").GPTNeoModel(settings))
    rows(folder, "gpt_neo", "rows", settings, "GPTNeoModel", module, {"input_ids": ids}, "wpe", {})

    settings = config("reformer", axial_pos_embds=False, hidden_size=8, max_position_embeddings=16, vocab_size=12)
    module = random(of("reformer").ReformerEmbeddings(settings))
    given = {"input_ids": ids, "start_idx_pos_encodings": 3}
    table = "position_embeddings.embedding"
    at = {"in.position_ids": 3 + torch.arange(8)[None].expand(3, 8)}
    rows(folder, "reformer", "from_3", settings, "ReformerEmbeddings", module, given, table, at)

    settings = config("decision_transformer", hidden_size=8, n_layer=1, n_head=2, max_ep_len=16, state_dim=2, act_dim=2)
    module, times = random(of("decision_transformer").DecisionTransformerModel(settings)), torch.tensor([[3, 4, 9, 15]])
    given = {"states": torch.zeros(1, 4, 2), "actions": torch.zeros(1, 4, 2), "rewards": torch.zeros(1, 4, 1)}
    given |= {"returns_to_go": torch.zeros(1, 4, 1), "timesteps": times, "attention_mask": torch.ones(1, 4)}
    at, table = {"in.position_ids": times}, "embed_timestep"
    rows(folder, "decision_transformer", "times", settings, "DecisionTransformerModel", module, given, table, at)

    settings = config("sam3_lite_text_text_model", hidden_size=8, num_attention_heads=2, max_position_embeddings=6)
    module = random(of("sam3_lite_text").Sam3LiteTextTextPositionEmbedding(6, 8))
    arrays = {f"out.length_{n}": module(n)[0] for n in (6, 4, 11)} | {"par.weight": module.position_embedding}
    ran = "Sam3LiteTextTextPositionEmbedding(6, 8)(n)"
    save(folder, "abs_learned", "sam3_lite_text_text_model", "resized", settings, ran, arrays)


def cells(folder):
    """TAPAS: columns and rows of a table's cells, 0 for the question; and positions past the table."""
    found = [[[0, 0]] * 3 + [[1, 1]] * 2 + [[2, 1]] + [[1, 2]] * 3, [[0, 0]] + [[2, 2]] * 8]
    types = torch.zeros(2, 9, 7, dtype=torch.long)
    types[..., 1:3] = torch.tensor(found)
    small = SMALL | {"vocab_size": 12, "type_vocab_sizes": [3, 4, 4, 2, 4, 4, 4]}
    for variant, more in (
        ("cells", {"max_position_embeddings": 6}),
        ("tokens", {"max_position_embeddings": 16, "reset_position_index_per_cell": False}),
    ):
        settings = config("tapas", **small, **more)
        module = random(of("tapas").TapasEmbeddings(settings))
        given = {"input_ids": torch.ones(2, 9, dtype=torch.long), "token_type_ids": types}
        arrays, table = {"in.cells": types[..., 1:3]}, "position_embeddings"
        rows(folder, "tapas", variant, settings, "TapasEmbeddings", module, given, table, arrays)


def mentions(folder):
    """LUKE: an entity is where its tokens are; there is -1 for those that it has not."""
    settings = config("luke", **SMALL, entity_vocab_size=6, entity_emb_size=8, max_position_embeddings=16)
    module, ids = random(of("luke").LukeEntityEmbeddings(settings)), torch.tensor([[3, 5, 0]])
    at = torch.tensor([[[2, 3, 4, -1], [0, -1, -1, -1], [-1, -1, -1, -1]]])
    arrays = {"in.entity_ids": ids, "in.position_ids": at, "out.out": module(ids, at), **parameters(module)}
    save(folder, "abs_learned", "luke", "mentions", settings, "LukeEntityEmbeddings(config)(ids, positions)", arrays)


def paths(folder):
    """MarkupLM: tags and subscripts on the way to a node, a table for each depth of either."""
    small = {"max_depth": 3, "max_xpath_tag_unit_embeddings": 7, "max_xpath_subs_unit_embeddings": 9}
    settings = config("markuplm", **SMALL, **small, xpath_unit_hidden_size=2)
    made = random(of("markuplm").XPathEmbeddings(settings))
    tags, subscripts = torch.tensor([[[0, 2, 6], [3, 3, 1]]]), torch.tensor([[[8, 0, 1], [4, 5, 4]]])
    arrays = {"in.tags": tags, "in.subscripts": subscripts}
    with torch.no_grad():
        seen = read_of(made.xpath_unitseq2_inner, lambda: made(tags, subscripts))
    arrays |= {"out.inner": seen, **parameters(made)}
    save(folder, "abs_axial", "markuplm", "xpath", settings, "XPathEmbeddings(config)(tags, subscripts)", arrays)


def sounds(folder):
    """Encoders add their whole table to frames, which are silent here: no weight but the table's is other than 0."""
    for model_type, module, name in (
        ("voxtral_encoder", "voxtral", "VoxtralEncoder"),
        ("moss_transcribe_diarize_audio", "moss_transcribe_diarize", "MossTranscribeDiarizeAudioModel"),
        ("audioflamingo3_encoder", "audioflamingo3", "AudioFlamingo3Encoder"),
        ("qwen2_audio_encoder", "qwen2_audio", "Qwen2AudioEncoder"),
    ):
        names = {"d_model" if model_type.startswith("qwen2") else "hidden_size": 8}
        names |= {name: 2 for name in ("encoder_attention_heads", "num_attention_heads")}
        settings = config(model_type, **names, max_source_positions=6, num_mel_bins=4)
        for key in ("encoder_layers", "num_hidden_layers"):
            if key in settings.attribute_map or hasattr(settings, key):
                setattr(settings, key, 1)
        made = getattr(of(module), name)(settings).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
            made.embed_positions.weight.normal_()
        seen = []
        made.layers[0].register_forward_pre_hook(
            lambda module, given, named, seen=seen: seen.append((*given, *named.values())[0]), with_kwargs=True
        )
        mask = {"input_features_mask": torch.ones(1, 12)} if model_type.startswith("audioflamingo") else {}
        made(torch.zeros(1, 4, 12), **mask)
        arrays = {"out.out": seen[0][0], "par.weight": made.embed_positions.weight}
        save(
            folder, "abs_learned", model_type, "silence", settings, f"{name}(config)(silence), its first layer", arrays
        )
    settings = config("audio-spectrogram-transformer", **SMALL, patch_size=4, max_length=14, num_mel_bins=12)
    settings.frequency_stride = settings.time_stride = 3
    made = random(of("audio_spectrogram_transformer").ASTEmbeddings(settings))
    arrays = {"in.input_values": torch.zeros(1, 14, 12), **parameters(made)}
    arrays["out.out"] = made(arrays["in.input_values"])
    save(folder, "abs_interp2d", "audio-spectrogram-transformer", "sound", settings, "ASTEmbeddings(config)(x)", arrays)


def series(folder):
    """Time series: patches, and a class token, of zeros."""
    patches = {"context_length": 16, "patch_length": 4, "patch_stride": 3, "d_model": 8, "num_input_channels": 2}
    for variant, more in (
        ("class_token", {"use_cls_token": True, "positional_encoding_type": "random"}),
        ("fixed", {}),
    ):
        settings = config("patchtst", **patches, **more, positional_dropout=0.0)
        made = of("patchtst").PatchTSTPositionalEncoding(settings, 5)
        arrays = {"out.out": made(torch.zeros(1, 2, 5, 8))[0, 0], "par.weight": made.position_enc}
        save(folder, "abs_learned", "patchtst", variant, settings, "PatchTSTPositionalEncoding(config, 5)(0)", arrays)
    settings = config("patchtsmixer", **patches, use_positional_encoding=True, positional_encoding_type="random")
    made = of("patchtsmixer").PatchTSMixerPositionalEncoding(settings)
    arrays = {"out.out": made(torch.zeros(1, 2, settings.num_patches, 8))[0, 0], "par.weight": made.position_enc}
    save(folder, "abs_learned", "patchtsmixer", "random", settings, "PatchTSMixerPositionalEncoding(config)(0)", arrays)


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


def axes(folder):
    """Patches that say where they are, and pictures that are not square."""
    settings = config("pix2struct_vision_model", hidden_size=8, patch_embed_hidden_size=6, seq_len=7)
    made, at = random(of("pix2struct").Pix2StructVisionEmbeddings(settings)), torch.tensor([[[0, 6], [5, 1], [3, 3]]])
    given = {"in.flattened_patches": torch.cat([at, torch.randn(1, 3, 6)], dim=-1)}
    arrays = given | {"out.out": made(given["in.flattened_patches"]), **parameters(made)}
    ran = "Pix2StructVisionEmbeddings(config)(flattened_patches)"
    save(folder, "abs_learned_2d", "pix2struct_vision_model", "places", settings, ran, arrays)

    vision = config("florence_vision", embed_dim=[4, 8], max_position_embeddings=9, max_temporal_embeddings=6)
    both, florence = config("florence2", vision_config=vision), of("florence2")
    made = random(florence.Florence2VisionLearnedAbsolutePositionEmbedding2D(both))
    arrays = {"out.out": made(torch.zeros(1, 8, 3, 5)), **parameters(made)}
    save(folder, "abs_learned_2d", "florence_vision", "picture", vision, f"{type(made).__name__}(config)", arrays)
    made = florence.Florence2VisionPositionalEmbeddingCosine1D(both)
    arrays = {"out.table": made.pos_idx_to_embed, "out.out": made(torch.zeros(1, 4, 8))}
    save(folder, "sin_1d", "florence_vision", "table", vision, f"{type(made).__name__}(config)", arrays)


def coordinates(folder):
    """SAM 3's: of boxes in its decoder, and of prompts, whose sizes go in as they are."""
    given, small = {"in.boxes": torch.rand(1, 5, 4)}, {"hidden_size": 8, "num_attention_heads": 2, "num_layers": 1}
    settings = config("sam3_detr_decoder", **small)
    out = of("sam3").Sam3DetrDecoder(settings).position_encoding.encode_boxes(given["in.boxes"])
    ran = "Sam3DetrDecoder(config).position_encoding.encode_boxes(boxes)"
    save(folder, "sin_coords", "sam3_detr_decoder", "boxes", settings, ran, given | {"out.boxes": out})
    settings = config("sam3_geometry_encoder", **small)
    made = of("sam3").Sam3GeometryEncoder(settings)
    out = made._encode_box_coordinates(*given["in.boxes"][0].unbind(-1))
    ran = "Sam3GeometryEncoder(config)._encode_box_coordinates(x, y, width, height)"
    save(folder, "sin_coords", "sam3_geometry_encoder", "prompts", settings, ran, given | {"out.boxes": out[None]})


def levit(folder):
    """Layers of each stage, and of those that shrink the picture between two."""
    settings = config("levit", image_size=80, depths=[1, 1, 1], hidden_sizes=[8, 12, 16], key_dim=[2, 4, 4])
    settings.num_attention_heads = [2, 3, 4]
    made = random(of("levit").LevitModel(settings))
    settings.down_ops = settings.down_ops[:2]  # the model adds to them
    arrays = {}
    for i, stage in enumerate(made.encoder.stages):
        layers = [layer for layer in stage.modules() if hasattr(layer, "attention_biases")]
        for place, layer in zip((f"stages.{i}", f"between.{i}"), layers, strict=False):
            arrays |= {f"par.{place}": layer.attention_biases, f"out.{place}": layer.get_attention_biases("cpu")}
    save(folder, "bias_window", "levit", "places", settings, "LevitModel(config), get_attention_biases", arrays)


def sinusoids(folder):
    made = of("deformable_detr").DeformableDetrSinePositionEmbedding(8, normalize=True)
    out = made(torch.Size([2, 3, 4, 5]), torch.device("cpu"), torch.float32, MASK)
    ran = "DeformableDetrSinePositionEmbedding(8, normalize=True)(shape, device, dtype, mask)"
    save(folder, "sin_2d_detr", "deformable_detr", "half", None, ran, {"in.mask": MASK, "out.norm_mask": out})
    settings = config("dab-detr", hidden_size=16)
    out = of("dab_detr").DabDetrSinePositionEmbedding(settings)(torch.zeros(2, 3, 4, 5), MASK)
    ran = "DabDetrSinePositionEmbedding(config)(pixel_values, pixel_mask)"
    save(folder, "sin_2d_detr", "dab-detr", "mask", settings, ran, {"in.mask": MASK, "out.out": out})


def pixels(folder):
    """DETR's and SAM's kin, as their models make the class."""
    memory = {"memory_encoder_output_channels": 16}
    for model_type, module, prefix, sizes in (
        ("detr", "detr", "Detr", {"d_model": 16}),
        ("conditional_detr", "conditional_detr", "ConditionalDetr", {"d_model": 16}),
        ("deformable_detr", "deformable_detr", "DeformableDetr", {"d_model": 16}),
        ("table-transformer", "table_transformer", "TableTransformer", {"d_model": 16}),
        ("mm-grounding-dino", "mm_grounding_dino", "MMGroundingDino", {"d_model": 16}),
        ("mask2former", "mask2former", "Mask2Former", {"feature_size": 16, "hidden_dim": 16}),
        ("oneformer", "oneformer", "OneFormer", {"conv_dim": 16, "hidden_dim": 16}),
        ("sam2_vision_model", "sam2", "Sam2", {"fpn_hidden_size": 16}),
        ("sam3_vision_model", "sam3", "Sam3", {"fpn_hidden_size": 16}),
        ("edgetam_vision_model", "edgetam", "EdgeTam", {"fpn_hidden_size": 16}),
        ("sam2_video", "sam2_video", "Sam2Video", memory),
        ("sam3_tracker_video", "sam3_tracker_video", "Sam3TrackerVideo", memory),
        ("edgetam_video", "edgetam_video", "EdgeTamVideo", memory | {"perceiver_resampler_hidden_size": 16}),
    ):
        name = f"{prefix}PositionEmbeddingSine" if "video" in model_type else f"{prefix}SinePositionEmbedding"
        settings, owner = config(model_type, **sizes), getattr(of(module), name)
        if model_type == "mm-grounding-dino":
            out = owner(settings)(torch.zeros(2, 3, 4, 5), MASK)
        elif model_type == "table-transformer":
            out = owner(8, normalize=True)(torch.zeros(2, 3, 4, 5), MASK)
        else:
            out = owner(8, normalize=True)(torch.Size([2, 3, 4, 5]), torch.device("cpu"), torch.float32, MASK)
        ran = f"{owner.__name__}, normalized"
        save(folder, "sin_2d_detr", model_type, "config", settings, ran, {"in.mask": MASK, "out.out": out})


def grids(folder):
    """RT-DETR's kin, and what joins Granite Docling's pictures to its text."""
    for model_type, module, prefix in (
        ("rt_detr", "rt_detr", "RTDetr"),
        ("rt_detr_v2", "rt_detr_v2", "RTDetrV2"),
        ("d_fine", "d_fine", "DFine"),
        ("deimv2", "deimv2", "Deimv2"),
        *((f"pp_doclayout_v{n}", f"pp_doclayout_v{n}", f"PPDocLayoutV{n}") for n in (2, 3, 4)),
    ):
        settings = config(model_type, encoder_hidden_dim=16, positional_encoding_temperature=5000)
        owner = getattr(of(module), f"{prefix}SinePositionEmbedding")
        made = owner(settings.encoder_hidden_dim, settings.positional_encoding_temperature)
        out = made(5, 3, torch.device("cpu"), torch.float32)[0]
        save(folder, "sin_2d", model_type, "grid", settings, owner.__name__, {"out.3x5x16": out})
    settings = config("granite_docling", vision_config={"out_hidden_size": 16}, text_config={"hidden_size": 16})
    made = of("granite_docling").GraniteDoclingPositionEmbedding(settings.vision_config.out_hidden_size, 3)
    arrays = {"out.3x3x16": made(torch.zeros(9, 16))}
    save(folder, "sin_2d", "granite_docling", "connector", settings, "GraniteDoclingPositionEmbedding(16, 3)", arrays)


def fairseq(folder):
    """Sinusoids whose row of padding is zero."""
    ids = torch.tensor([[5, 3, 7, 2, 1, 1], [1, 1, 3, 4, 5, 6]])
    settings = config("trocr", d_model=8, max_position_embeddings=12, use_learned_position_embeddings=False)
    made = of("trocr").TrOCRSinusoidalPositionalEmbedding(14, 8, settings.pad_token_id)
    arrays = {"in.input_ids": ids, "out.table_8_pad1": made.weights, "out.out_8_pad1": made(ids)}
    arrays["out.out_past4_8_pad1"] = made(ids, 4)
    ran = "TrOCRSinusoidalPositionalEmbedding(14, 8, 1)(input_ids, past_key_values_length)"
    save(folder, "sin_1d", "trocr", "padding", settings, ran, arrays)

    settings, alpha = config("seamless_m4t_v2", **SIZES), torch.tensor([1.25])
    made = of("seamless_m4t_v2").SeamlessM4Tv2SinusoidalPositionalEmbedding(14, 8, settings.t2u_pad_token_id)
    arrays = {"par.alpha": alpha, "out.units": (alpha * made(inputs_embeds=torch.zeros(1, 9, 8)))[0]}
    ran = "alpha * SeamlessM4Tv2SinusoidalPositionalEmbedding(14, 8, 2)(inputs_embeds)"
    save(folder, "sin_1d", "seamless_m4t_v2", "units", settings, ran, arrays)


def main():
    folder = asked(__doc__).folder
    torch.manual_seed(0)
    everything = (pictures, buckets, tiles, boxes, texts, cells, mentions, paths, sounds, series, convolutions)
    everything += (sinusoids, pixels, grids, fairseq, axes, coordinates, levit)
    for make in everything:
        make(folder)


if __name__ == "__main__":
    main()
