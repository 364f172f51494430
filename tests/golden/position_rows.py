"""What each of transformers' model types does about positions, besides rotation: read from its source by hand.

One row for each place where positions come in. A setting is a number, a word, or "=" and an expression over the keys of
the configuration, which `posembed_jax/hf/expressions.py` evaluates. `make_positions.py` checks every row against the
module that it speaks of, and writes them all to `posembed_jax/hf/position_types.json`.

Keys of a row that are no settings:

    place     where: "" if there is one place only, else a name such as "encoder"
    kind      which mechanism: a key of `posembed_jax/hf/builders.py`
    when      an expression; the row counts where it is true
    requires  expressions that the code takes for granted, whatever the configuration says
    instead_of_rotation   a model that can do either does not rotate where this row counts
    each      an expression: one place for each of its values, "place.0", "place.1", ...; settings see `each` and `i`
    about     what the model does around it: how positions are numbered, tokens in front, how a table is resized
    stacked   the parameter has those of all layers
    tensor    how the name of the parameter ends, whose shape the settings give
    code      class or function of the model's module that does it; else the class that has the tensor
"""

TAU = 6.283185307179586
TEXT = "=max_position_embeddings"
WIDTH = "=hidden_size"
BICUBIC = {"method": "bicubic", "antialias": False, "align_corners": False}
BILINEAR = {"method": "bilinear", "antialias": False, "align_corners": False}
SMOOTH_BICUBIC = {"method": "bicubic", "antialias": True, "align_corners": False}
SMOOTH_BILINEAR = {"method": "bilinear", "antialias": True, "align_corners": False}
CORNERS = {"method": "bilinear", "antialias": False, "align_corners": True}
MERGED = {"merge": "=spatial_merge_size"}  # block after block of patches


def learned(tensor="position_embeddings.weight", length=TEXT, features=WIDTH, offset=0, place="", **rest):
    settings = {"length": length, "features": features}
    if offset:
        settings["index_offset"] = offset
    return {"place": place, "kind": "learned", "tensor": tensor, **settings, **rest}


def padded(tensor="position_embeddings.weight", pad="pad_token_id", features=WIDTH, **rest):
    """RoBERTa: padding stands at the row of the padding token, tokens after it."""
    return learned(
        tensor,
        length=f"=max_position_embeddings - {pad} - 1",
        features=features,
        offset=f"={pad} + 1" if isinstance(pad, str) else pad + 1,
        about={"position_ids": "padding"},
        **rest,
    )


def grid(tensor, prefix=0, resize=None, shape="=patches(image_size, patch_size)", features=WIDTH, place="", **rest):
    """A row for each patch of a picture, after those of the tokens in front."""
    about = {"prefix": prefix, "shape": shape} | ({"resize": resize} if resize else {}) | rest.pop("about", {})
    front = str(prefix).removeprefix("=")
    length = f"={front} + prod({shape.removeprefix('=')})" if front != "0" else f"=prod({shape.removeprefix('=')})"
    return {
        "place": place,
        "kind": "learned",
        "tensor": tensor,
        "length": length,
        "features": features,
        "about": about,
        **rest,
    }


def sinusoid(features, code, layout="sin_cos", denominator="half", place="", **rest):
    return {
        "place": place,
        "kind": "sinusoidal",
        "code": code,
        "features": features,
        "layout": layout,
        "denominator": denominator,
        **rest,
    }


def t5(place="", bidirectional=True, heads="=num_heads", tensor="relative_attention_bias.weight", **rest):
    return {
        "place": place,
        "kind": "t5",
        "tensor": tensor,
        "heads": heads,
        "buckets": "=relative_attention_num_buckets",
        "max_distance": "=relative_attention_max_distance",
        "bidirectional": bidirectional,
        **rest,
    }


BERTS = """albert:=embedding_size align_text_model bert bert-generation big_bird blip_text_model chinese_clip_text_model
convbert:=embedding_size deberta:=embedding_size deberta-v2:=embedding_size electra:=embedding_size ernie
flava_text_model fnet instructblip_qformer instructblipvideo_qformer lxmert megatron-bert mobilebert
rembert:=input_embedding_size roc_bert splinter squeezebert:=embedding_size"""
CLIP_TEXTS = """aimv2_text_model clip_text_model clipseg_text_model groupvit_text_model metaclip_2_text_model
owlv2_text_model owlvit_text_model siglip2_text_model siglip_text_model xclip_text_model"""
ROBERTAS = """altclip_text_model bridgetower_text_model camembert clap_text_model data2vec-text ibert longformer
roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"""

ROWS = {}
for names, row in ((BERTS, learned), (CLIP_TEXTS, learned), (ROBERTAS, padded)):
    for name in names.split():
        name, _, features = name.partition(":")
        tensor = "position_embedding.weight" if names is CLIP_TEXTS else "position_embeddings.weight"
        ROWS[name] = [row(tensor, features=features or WIDTH)]
for name in ("deberta", "deberta-v2"):
    ROWS[name][0] |= {
        "features": "=embedding_size if embedding_size else hidden_size",
        "when": "=position_biased_input",
    }

GPTS = {"gpt-sw3": "wpe", "gpt2": "wpe", "gpt_bigcode": "wpe", "imagegpt": "wpe", "openai-gpt": "positions_embed"}
ROWS |= {name: [learned(f"{tensor}.weight", "=n_positions", "=n_embd")] for name, tensor in GPTS.items()}
ROWS |= {
    "gpt_neo": [learned("wpe.weight")],
    "decision_transformer": [learned("embed_timestep.weight", "=max_ep_len", place="timesteps")],
    "clvp_decoder": [learned("position_embeds_layer.weight")],
    "dpr": [learned()],
    "tapas": [
        learned(
            out_of_range="='clip' if reset_position_index_per_cell else 'error'",
            about={"position_ids": "='cells' if reset_position_index_per_cell else 'tokens'"},
        )
    ],
    "mra": [learned(offset=2, length=TEXT)],
    "nystromformer": [learned(offset=2, length=TEXT)],
    "yoso": [learned(offset=2, length=TEXT)],
    "canine": [learned("char_position_embeddings.weight", "=num_hash_buckets")],
    "visual_bert": [learned(place="text"), learned("visual_position_embeddings.weight", place="visual")],
    "luke": [
        padded(place="text"),
        learned("entity_embeddings.position_embeddings.weight", place="entities", about={"position_ids": "mentions"}),
    ],
    "markuplm": [
        padded(place="text"),
        *(
            {"place": f"xpath.{place}", "kind": "axial", "shape": f"=(max_xpath_{part}_unit_embeddings,) * max_depth"}
            | {"features": "=max_depth * xpath_unit_hidden_size", "join": "concatenate", "code": "XPathEmbeddings"}
            for place, part in (("tags", "tag"), ("subscripts", "subs"))
        ),
    ],
    "lilt": [padded(place="text")],
    "prophetnet": [
        padded("position_embeddings.weight", place="", features="=hidden_size"),
        {
            "place": "decoder",
            "kind": "t5",
            "heads": "=num_decoder_attention_heads",
            "buckets": "=num_buckets",
            "max_distance": "=relative_max_distance",
            "bidirectional": False,
            "code": "ProphetNetNgramSelfAttention",
            "about": {"table_of": "hidden states"},
        },
    ],
    "mpnet": [
        padded(place="tokens", pad="1"),
        t5("attention", heads="=num_attention_heads"),
    ],
    "esm": [padded(when="=position_embedding_type == 'absolute'", instead_of_rotation=True)],
}
ROWS["mpnet"][1] |= {"max_distance": 128, "requires": ["=relative_attention_num_buckets == 32"]}
ROWS["ibert"][0]["about"] |= {"bits": "=8 if quant_mode else None"}

# Encoders and decoders
BART = "embed_positions.weight"
for name in ("bart", "mbart", "mvp", "plbart"):
    ROWS[name] = [learned(BART, features="=d_model", offset=2, place=place) for place in ("encoder", "decoder")]
for name in ("bigbird_pegasus", "blenderbot", "blenderbot-small"):
    ROWS[name] = [learned(BART, features="=d_model", place=place) for place in ("encoder", "decoder")]
ROWS |= {
    "led": [
        learned(BART, f"=max_{place}_position_embeddings", "=d_model", place=place) for place in ("encoder", "decoder")
    ],
    "opt": [learned(BART, offset=2, about={"position_ids": "padding"})],
    "biogpt": [learned(BART, offset=2, about={"position_ids": "padding"})],
    "trocr": [
        learned(BART, features="=d_model", offset=2, when="=use_learned_position_embeddings"),
    ],
    "pp_formulanet_text": [learned(BART, features="=d_model", offset=2)],
}
SOUNDS = {
    "audioflamingo3_encoder": WIDTH,
    "moss_transcribe_diarize_audio": WIDTH,
    "qwen2_audio_encoder": "=d_model",
    "voxtral_encoder": WIDTH,
}
ROWS |= {name: [learned(BART, "=max_source_positions", width)] for name, width in SOUNDS.items()}
ROWS["whisper"] = [
    sinusoid("=d_model", "sinusoids", denominator="half_minus_1", place="encoder"),
    learned(BART, "=max_target_positions", "=d_model", place="decoder"),
]

# Sinusoids
NUMPY = dict(layout="sin_cos", denominator="half")
TENSOR2TENSOR = dict(layout="sin_cos", denominator="half_minus_1")
PADDING = {"position_ids": "padding", "first": "=pad_token_id + 1", "zero_padding": True}
for name, prefix in (("autoformer", "Autoformer"), ("informer", "Informer"), ("time_series_transformer", "TimeSeries")):
    code = f"{prefix}SinusoidalPositionalEmbedding"
    ROWS[name] = [sinusoid("=d_model", code, place=place) for place in ("encoder", "decoder")]
for name, prefix in (("marian", "Marian"), ("pegasus", "Pegasus")):
    code = f"{prefix}SinusoidalPositionalEmbedding"
    ROWS[name] = [sinusoid("=d_model", code, place=place) for place in ("encoder", "decoder")]
for name, prefix in (("m2m_100", "M2M100"), ("nllb-moe", "NllbMoe"), ("fsmt", ""), ("speech_to_text", "Speech2Text")):
    code = f"{prefix}SinusoidalPositionalEmbedding"
    ROWS[name] = [
        sinusoid("=d_model", code, **TENSOR2TENSOR, odd="zero", place=place, about=PADDING)
        for place in ("encoder", "decoder")
    ]
ROWS |= {
    "pegasus_x": [
        sinusoid("=d_model", "PegasusXSinusoidalPositionalEmbedding", **TENSOR2TENSOR, place=place)
        for place in ("encoder", "decoder")
    ],
    "kosmos_2_text_model": [
        sinusoid("=embed_dim", "Kosmos2TextSinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", about=PADDING)
    ],
    "kosmos_2_5_text_model": [
        sinusoid("=embed_dim", "Kosmos2_5TextSinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", about=PADDING)
    ],
    "xglm": [
        sinusoid("=d_model", "XGLMSinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", about={"first": 2})
    ],
    "musicgen_decoder": [
        sinusoid(WIDTH, "MusicgenSinusoidalPositionalEmbedding", "cos_sin", "half_minus_1", odd="zero")
    ],
    "musicgen_melody_decoder": [
        sinusoid(WIDTH, "MusicgenMelodySinusoidalPositionalEmbedding", "cos_sin", "half_minus_1", odd="zero")
    ],
    "ctrl": [sinusoid("=n_embd", "positional_encoding")],
    "distilbert": [
        sinusoid("=dim", "create_sinusoidal_embeddings", "interleaved", when="=sinusoidal_pos_embds"),
        learned(features="=dim", when="=not sinusoidal_pos_embds"),
    ],
    "flaubert": [
        sinusoid("=emb_dim", "create_sinusoidal_embeddings", "interleaved", when="=sinusoidal_embeddings"),
        learned(features="=emb_dim", when="=not sinusoidal_embeddings"),
    ],
    "xlm": [
        sinusoid("=emb_dim", "create_sinusoidal_embeddings", "interleaved", when="=sinusoidal_embeddings"),
        learned(features="=emb_dim", when="=not sinusoidal_embeddings"),
    ],
    "fun_asr_nano_encoder": [
        sinusoid("=input_size", "FunAsrNanoPositionEmbedding", **TENSOR2TENSOR, about={"first": 1})
    ],
    "qwen2_5_omni_audio_encoder": [sinusoid("=d_model", "SinusoidsPositionEmbedding", **TENSOR2TENSOR)],
    "qwen3_asr_encoder": [sinusoid("=d_model", "SinusoidsPositionEmbedding", **TENSOR2TENSOR)],
    "qwen3_omni_moe_audio_encoder": [sinusoid("=d_model", "SinusoidsPositionEmbedding", **TENSOR2TENSOR)],
    "qwen2_5_omni_dit": [
        sinusoid(256, "SinusPositionEmbedding", **TENSOR2TENSOR, place="times", fractional=True, scale=1000.0)
    ],
    "timesfm": [
        sinusoid(
            WIDTH, "TimesFmPositionalEmbedding", **TENSOR2TENSOR, odd="zero", base="=max_timescale / min_timescale"
        )
    ],
    "tipsv2_text_model": [sinusoid(WIDTH, "Tipsv2SinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero")],
    "videoprism_text_model": [sinusoid(WIDTH, "create_sinusoidal_positions")],
    "videomae": [sinusoid(WIDTH, "get_sinusoid_encoding_table", "interleaved")],
    "canary_decoder": [
        sinusoid(
            WIDTH,
            "CanaryPositionalEmbedding",
            **TENSOR2TENSOR,
            base="=10000 ** ((hidden_size - 2) / hidden_size)",
            about={"divided_by": "=hidden_size ** 0.5"},
        )
    ],
}

# T5
for name in ("longt5", "mt5", "pop2piano", "switch_transformers", "t5", "umt5"):
    ROWS[name] = [t5("encoder"), t5("decoder", bidirectional=False)]
ROWS["longt5"][1]["code"] = "LongT5Attention"
ROWS["longt5"].append(
    t5("encoder.global", tensor="global_relative_attention_bias.weight")
    | {"when": "=encoder_attention_type == 'transient-global'", "about": {"blocks": "=global_block_size"}}
)
ROWS["pix2struct_text_model"] = [t5(bidirectional=False)]

# ALiBi
ROWS |= {
    "bloom": [{"place": "", "kind": "alibi", "heads": "=n_head", "symmetric": False, "code": "build_alibi_tensor"}],
    "falcon": [
        {
            "place": "",
            "kind": "alibi_bfloat16",
            "heads": "=num_attention_heads",
            "symmetric": False,
            "code": "build_alibi_tensor",
            "when": "=alibi",
            "instead_of_rotation": True,
            "about": {"scaled_with_logits": True, "rounded_to": "bfloat16"},
        }
    ],
    "mpt": [
        {
            "place": "",
            "kind": "alibi",
            "heads": "=n_heads",
            "code": "build_mpt_alibi_tensor",
            "requires": ["=attn_config['alibi']", "=attn_config['alibi_bias_max'] == 8"],
        }
    ],
}

# Tables for the patches of pictures
TABLE, PARAMETER = "position_embedding.weight", "position_embeddings"
LAST_STAGE = "(1 if i == num_encoder_blocks - 1 else 0)"
STAGE_OF_PVT = "patches(image_size if i == 0 else image_size // 2 ** (i + 1), patch_sizes[i])"
PATCH_BY_PATCH = ["row", "column", "frame"]
ORDER_OF_TIMESFORMER = f"={PATCH_BY_PATCH} if attention_type != 'space_only' else ['frame', 'row', 'column']"
CHANNELS_FIRST = {"stored": "channels first"}
BLIPS = "blip_2_vision_model blip_vision_model instructblip_vision_model instructblipvideo_vision_model"
CLIPS = """altclip_vision_model chinese_clip_vision_model clip_vision_model clipseg_vision_model git_vision_model
kosmos_2_vision_model metaclip_2_vision_model owlv2_vision_model owlvit_vision_model xclip_vision_model"""
SIGLIPS = "janus_vision_model siglip_vision_model"
VITS = "dinov2 dinov2_with_registers flava_image_model internvl_vision qianfan_ocr_vision vit vit_msn"
ROWS |= {name: [grid("position_embedding", 1, BICUBIC)] for name in BLIPS.split()}
ROWS |= {name: [grid(TABLE, 1, BICUBIC)] for name in CLIPS.split()}
ROWS |= {name: [grid(TABLE, 0, BICUBIC)] for name in SIGLIPS.split()}
ROWS |= {name: [grid(PARAMETER, 1, BICUBIC)] for name in VITS.split()}
ROWS |= {
    "dinov2_with_registers": [grid(PARAMETER, 1, SMOOTH_BICUBIC)],
    "bridgetower_vision_model": [grid(TABLE, 1, BICUBIC)],
    "deit": [grid(PARAMETER, 2, BICUBIC)],
    "pixio": [grid(PARAMETER, "=n_cls_tokens", BICUBIC)],
    "groupvit_vision_model": [grid(PARAMETER, 0, BICUBIC)],
    "ijepa": [grid(PARAMETER, 0, BICUBIC)],
    "idefics_vision": [grid(TABLE, 1, {**BICUBIC, "by_scale": True}, code="IdeficsVisionEmbeddings")],
    "dpt": [grid(PARAMETER, 1, BILINEAR)],
    "tipsv2_vision_model": [grid(PARAMETER, 1, SMOOTH_BILINEAR)],
    "rf_detr_dinov2": [grid(PARAMETER, 1, SMOOTH_BICUBIC, about={"windows": "=num_windows"})],
    "unlimited_ocr_vision_encoder": [grid(TABLE, 1, SMOOTH_BICUBIC)],
    "step3p5_vision": [grid(TABLE, 0, BILINEAR)],
    "ovis2_vision": [grid(TABLE)],
    "eomt": [grid("position_embeddings.weight", about={"tokens_in_front_without": "=1 + num_register_tokens"})],
    "videomt": [grid("position_embeddings.weight", about={"tokens_in_front_without": "=1 + num_register_tokens"})],
    "granite_docling_vision": [grid(TABLE, 0, BICUBIC)],
    "phi4_multimodal_vision": [grid(TABLE, 0, {"method": "buckets", "reciprocal": True})],
    "siglip2_vision_model": [
        grid(TABLE, 0, SMOOTH_BILINEAR, "=(isqrt(num_patches), isqrt(num_patches))"),
    ],
    "cosmos3_edge_vision": [
        grid(TABLE, 0, SMOOTH_BILINEAR, "=(isqrt(num_patches), isqrt(num_patches))", about=MERGED),
    ],
    "hunyuan_vl_vision": [
        grid(
            TABLE,
            1,
            {"method": "=interpolate_mode", "antialias": False, "align_corners": False},
            "=patches(max_image_size, patch_size)",
            about={"prefix_unused": True},
        )
    ],
    "vitdet": [
        grid(PARAMETER, 1, BICUBIC, "=patches(pretrain_image_size, patch_size)", about={"prefix_unused": True})
        | {"when": "=use_absolute_position_embeddings", "place": "patches"},
    ],
    "lw_detr_vit": [
        grid(PARAMETER, 1, BICUBIC, "=patches(pretrain_image_size, patch_size)", about={"prefix_unused": True})
        | {"when": "=use_absolute_position_embeddings"}
    ],
    "vitpose_backbone": [grid(PARAMETER, 1, about={"prefix_added_to_all": True})],
    "mgp-str": [grid("pos_embed", 1)],
    "yolos": [
        grid(PARAMETER, 1, BICUBIC, about={"behind": "=num_detection_tokens"})
        | {"length": "=1 + prod(patches(image_size, patch_size)) + num_detection_tokens", "place": "patches"},
        grid("mid_position_embeddings", 1, BICUBIC, about={"behind": "=num_detection_tokens"})
        | {
            "length": "=1 + image_size[0] * image_size[1] // patch_size ** 2 + num_detection_tokens",
            "place": "layers",
            "each": "=range(num_hidden_layers - 1)",
            "when": "=use_mid_position_embeddings",
            "stacked": True,
        },
    ],
    "audio-spectrogram-transformer": [
        grid(
            PARAMETER,
            2,
            shape="=((num_mel_bins - patch_size) // frequency_stride + 1,"
            " (max_length - patch_size) // time_stride + 1)",
        )
    ],
    "llama4_vision_model": [
        grid("positional_embedding_vlm", about={"behind": 1}) | {"length": "=prod(patches(image_size, patch_size)) + 1"}
    ],
    "molmo2_vision": [
        grid("positional_embedding", shape="=(isqrt(num_position_embeddings), isqrt(num_position_embeddings))")
        | {"length": "=num_position_embeddings"}
    ],
    "vivit": [
        grid(
            PARAMETER,
            1,
            shape="=(num_frames // tubelet_size[0], pair(image_size)[0] // tubelet_size[1],"
            " pair(image_size)[1] // tubelet_size[2])",
        )
    ],
    "timesformer": [
        grid(PARAMETER, 1, {"method": "nearest"}, about={"order": ORDER_OF_TIMESFORMER}) | {"place": "patches"},
        learned("time_embeddings", "=num_frames", place="frames")
        | {
            "about": {"resize": {"method": "nearest"}, "axes": ["frame"], "order": PATCH_BY_PATCH}
            | {"shape": "=(num_frames,)", "tokens_in_front_without": 1},
            "when": "=attention_type != 'space_only'",
        },
    ],
    "hiera": [
        grid(PARAMETER, 0, BICUBIC, "=patches(image_size, patch_stride)", "=embed_dim"),
    ],
    "pvt": [
        grid(PARAMETER)
        | {
            "place": "stages",
            "each": "=hidden_sizes",
            "features": "=each",
            "length": f"={LAST_STAGE} + prod({STAGE_OF_PVT})",
            "about": {"prefix": f"={LAST_STAGE}", "shape": f"={STAGE_OF_PVT}"},
        }
    ],
    "radio": [
        grid(
            "position_embedding",
            0,
            {**BILINEAR, "square_first": True},
            "=patches(max_img_size, patch_size)",
            about={"tokens_in_front_without": "=num_cls_tokens + num_registers"},
        ),
    ],
    "sam3_vit_model": [
        grid(PARAMETER, 0, {"method": "tile"}, "=patches(pretrain_image_size, patch_size)"),
    ],
    "vilt": [
        grid(PARAMETER, 1, CORNERS) | {"place": "patches"},
        learned("text_embeddings.position_embeddings.weight", place="text"),
    ],
    "sam3_lite_text_text_model": [
        learned("position_embedding.position_embedding", about={"resize": BILINEAR}),
    ],
    "paddleocr_vl_vision": [grid(TABLE, 0, BILINEAR)],
    "inkling2_vision": [
        grid(TABLE, 0, BILINEAR, "=(posemb_grid_size, posemb_grid_size)", about=MERGED) | {"place": "patches"},
        learned("cls_position_embedding", 1, place="class_token"),
    ],
    "glm_image_vision": [grid(TABLE, 0, BILINEAR, about=MERGED)],
    "glm4v_vision": [grid(TABLE, 0, BICUBIC, about=MERGED)],
    "glm4v_moe_vision": [grid(TABLE, 0, BICUBIC, about=MERGED)],
    "kimi_k25_vision": [
        grid(PARAMETER, 0, BICUBIC, "=(pos_emb_height, pos_emb_width)") | {"place": "patches"},
        sinusoid(WIDTH, "Kimi_K25VisionPositionEmbeddings", place="frames", about={"first_of_video": 0, "image": None}),
    ],
}
QWENS = """cohere_compass_vision qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_vision_encoder qwen3_vl_moe_vision
qwen3_vl_vision qwen4_exp_vision"""
SIDE = "=(isqrt(num_position_embeddings), isqrt(num_position_embeddings))"
for name in QWENS.split():
    ROWS[name] = [grid("pos_embed.weight", 0, CORNERS, SIDE, about=MERGED)]
SQUARE = {"requires": ["=pos_emb_height == pos_emb_width"]}  # its height is taken for both
for name, swapped in (("muse_glimmer_vision", {}), ("muse_spark_vision", {"sides_swapped": True})):
    resize = {**BILINEAR, "padding": "zeros", **swapped}
    ROWS[name] = [grid("position_embedding_table.weight", 0, resize, "=(pos_emb_height, pos_emb_width)", **SQUARE)]
ROWS["kimi_k25_vision"][0] |= SQUARE
for name in ("idefics2_vision", "idefics3_vision", "smolvlm_vision"):
    ROWS[name] = [grid(TABLE, 0, {"method": "buckets", "reciprocal": True})]
for name in ("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision"):
    ROWS[name] = [grid(TABLE, 0, {"method": "buckets", "reciprocal": False})]


# Windows and decomposed tables
def swin(heads, window="=pair(window_size)", tensor="relative_position_bias_table"):
    return {"place": "stages", "kind": "swin", "each": heads, "heads": "=each", "window": window, "tensor": tensor}


for name, prefix in (("swin", 0), ("donut-swin", 1), ("maskformer-swin", 1)):
    table = grid(PARAMETER, prefix, BICUBIC, features="=embed_dim") | {
        "place": "patches",
        "when": "=use_absolute_embeddings",
    }
    ROWS[name] = [swin("=num_heads"), table]
ROWS["clap_audio_model"] = [swin("=num_attention_heads")]
for name in ("beit", "data2vec-vision"):
    beit = {"kind": "beit", "heads": "=num_attention_heads", "shape": "=patches(image_size, patch_size)"}
    beit |= {"tensor": "relative_position_bias_table", "about": {"prefix": 1}}
    ROWS[name] = [
        grid(PARAMETER, 1, BICUBIC) | {"place": "patches", "when": "=use_absolute_position_embeddings"},
        beit | {"place": "", "when": "=use_shared_relative_position_bias"},
        beit | {"place": "layers", "each": "=range(num_hidden_layers)", "when": "=use_relative_position_bias"},
    ]


# Boxes of tokens on a page
def boxes(tables, coordinates, shapes, joined):
    """A table for each edge of a box and for its sizes; summed, or joined channel after channel."""
    widths = {"x": coordinates, "y": coordinates, "h": shapes, "w": shapes}
    return [
        learned(
            f"{tables}{side}_position_embeddings.weight", "=max_2d_position_embeddings", width, place=f"boxes.{side}"
        )
        | {"about": {"joined": joined}}
        for side, width in widths.items()
    ]


def box_biases(divided):
    about = {"divided_by": "=(hidden_size // num_attention_heads) ** 0.5"} if divided else {}
    tokens = {"buckets": "=rel_pos_bins", "max_distance": "=max_rel_pos", "tensor": "rel_pos_bias.weight"}
    edges = {"buckets": "=rel_2d_pos_bins", "max_distance": "=max_rel_2d_pos", "tensor": "rel_pos_x_bias.weight"}
    heads = "=num_attention_heads"
    return [
        t5("attention.tokens", heads=heads)
        | tokens
        | {"when": "=has_relative_attention_bias", "about": {**about, "stored": "heads first"}},
        {"place": "attention.boxes", "kind": "t5_axes", "heads": heads, "axes": 2, **edges}
        | {"when": "=has_spatial_attention_bias", "about": {**about, "edges": ["left", "lower"]}},
    ]


V2 = [
    learned(place="text", code="LayoutLMv2Embeddings"),
    *(row | {"code": "LayoutLMv2Embeddings"} for row in boxes("", "=coordinate_size", "=shape_size", True)),
    *(row | {"code": "LayoutLMv2Encoder"} for row in box_biases(False)),
]
ROWS |= {
    "layoutlm": [learned(place="text"), *boxes("", WIDTH, WIDTH, False)],
    "layoutlmv2": V2,
    "layoutlmv3": [
        padded(place="text"),
        *boxes("", "=coordinate_size", "=shape_size", True)[:2],
        *(row | {"out_of_range": "clip"} for row in boxes("", "=coordinate_size", "=shape_size", True)[2:]),
        *box_biases(True),
        grid("pos_embed", 1, shape="=patches(input_size, patch_size)") | {"place": "patches", "when": "=visual_embed"},
    ],
    "lilt": [
        padded(place="text"),
        *(
            row | {"features": "=hidden_size // 6"}
            for row in boxes("layout_embeddings.", "=hidden_size // 6", "=hidden_size // 6", True)
        ),
        padded("box_position_embeddings.weight", place="layout", features="=hidden_size // channel_shrink_ratio"),
    ],
    "udop": [
        *(
            t5(f"encoder.{place}", tensor=f"relative_bias.biases.{i}.relative_attention_bias.weight")
            | {
                "buckets": f"=get(relative_bias_args[{i}], 'relative_attention_num_buckets', 32)",
                "max_distance": f"=get(relative_bias_args[{i}], 'max_distance', {furthest})",
                "bidirectional": f"=get(relative_bias_args[{i}], 'bidirectional', True)",
                "requires": [f"=relative_bias_args[{i}]['type'] == '{kind}'"],
                "about": {"scale": f"=get(relative_bias_args[{i}], 'scaling_factor', {scale})", "of": place},
            }
            for i, (place, kind, furthest, scale) in enumerate(
                (
                    ("tokens", "1d", 128, 1),
                    ("horizontal", "horizontal", 100, 100),
                    ("vertical", "vertical", 100, 100),
                )
            )
        ),
        t5("decoder", bidirectional=False, tensor="SelfAttention.relative_attention_bias.weight"),
        *(
            learned(f"cell_2d_embedding.{side}_position_embeddings.weight", "=max_2d_position_embeddings", "=d_model")
            | {"place": f"encoder.boxes.{side}", "about": {"joined": False, "scale": "=max_2d_position_embeddings - 1"}}
            for side in "xy"
        ),
    ],
    "bros": [
        learned(place="text", tensor="embeddings.position_embeddings.weight"),
        sinusoid("=hidden_size // 4", "BrosBboxEmbeddings", axes="=dim_bbox", fractional=True, scale="=bbox_scale")
        | {"place": "attention.boxes", "about": {"of": "differences of boxes", "added_to": "keys"}},
    ],
}

# Speech
for name, prefix in (("seamless_m4t", "SeamlessM4T"), ("seamless_m4t_v2", "SeamlessM4Tv2")):
    ROWS[name] = [
        sinusoid(WIDTH, f"{prefix}SinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", place=place)
        | {"about": PADDING}
        for place in ("text_encoder", "text_decoder")
    ]
ROWS["speecht5"] = [
    sinusoid(
        WIDTH, "SpeechT5SinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", place="speech", about=PADDING
    ),
    sinusoid(WIDTH, "SpeechT5ScaledPositionalEncoding", "interleaved", place="text", learned_amplitude=True),
]
ROWS["vibevoice_diffusion"] = [
    sinusoid(
        "=frequency_embedding_size",
        "VibeVoiceDiffusionHeadSinusoidalEmbedding",
        "cos_sin",
        place="times",
        fractional=True,
    )
]
ROWS["trocr"].append(
    sinusoid(
        "=d_model",
        "TrOCRSinusoidalPositionalEmbedding",
        **TENSOR2TENSOR,
        odd="zero",
        about=PADDING,
        when="=not use_learned_position_embeddings",
    )
)
NUMPY_TABLES = """autoformer distilbert flaubert informer marian pegasus time_series_transformer videomae xlm"""
for name in NUMPY_TABLES.split():
    for row in ROWS[name]:
        if row["kind"] == "sinusoidal":
            row["about"] = row.get("about", {}) | {"made_in": "float64"}
for row in ROWS["fsmt"]:
    row["about"] = row["about"] | {"filled_by_model": True}

# Pictures: windows, decomposed tables, and tables of rows and columns
HEAD = "=hidden_size // num_attention_heads"


def decomposed(windowed, size="image_size", window="window_size"):
    """Tables of rows and of columns, as large as what a layer attends over."""
    shape = f"patches({size}, patch_size)"
    return {
        "place": "layers",
        "kind": "decomposed",
        "each": "=range(num_hidden_layers)",
        "heads": "=num_attention_heads",
        "dim": HEAD,
        "shape": f"=pair({window}) if {windowed} else {shape}" if windowed else f"={shape}",
        "tensor": "rel_pos_h",
        "about": {"resize": BILINEAR},
    }


SAMS = "got_ocr2_vision sam_vision_model sam_hq_vision_model slanext_vision pp_formulanet_vision"
SMOOTH_SAMS = "deepseek_ocr2_sam_vision_model unlimited_ocr_sam_vision_model"
for name in (*SAMS.split(), *SMOOTH_SAMS.split()):
    ROWS[name] = [
        grid("pos_embed", 0, SMOOTH_BICUBIC if name in SMOOTH_SAMS else None)
        | {"place": "patches", "when": "=use_abs_pos"},
        decomposed("i not in global_attn_indexes") | {"when": "=use_rel_pos"},
    ]
RESOLUTION = "=pair(ceil(image_size // patch_size / 2 ** i))"


ROWS["vitdet"].append(decomposed("i in window_block_indices and window_size"))
ROWS["vitdet"][1]["when"] = "=use_relative_position_embeddings"
ROWS |= {
    "seggpt": [
        grid(PARAMETER, 1, BICUBIC, "=patches(pretrain_image_size, patch_size)", about={"prefix_unused": True})
        | {"place": "patches"},
        decomposed("") | {"when": "=use_relative_position_embeddings"},
    ],
    "swinv2": [
        {
            "place": "stages",
            "kind": "swin_v2",
            "each": "=num_heads",
            "heads": "=each",
            "window": "=pair(min(window_size, patches(image_size, patch_size)[0] // 2 ** i))",
            "pretrained_window": "=pair(pretrained_window_sizes[i]) if pretrained_window_sizes[i] else None",
            "tensor": "relative_coords_table",
        },
        grid(PARAMETER, 1, BICUBIC, features="=embed_dim") | {"place": "patches", "when": "=use_absolute_embeddings"},
    ],
    "swin2sr": [
        {
            "place": "stages",
            "kind": "swin_v2",
            "each": "=num_heads",
            "heads": "=each",
            "window": "=pair(min(window_size, patches(image_size, patch_size)[0]))",
            "tensor": "relative_coords_table",
            "requires": ["=not use_absolute_embeddings"],  # whose table has a row too many: transformers cannot add it
        },
    ],
    "levit": [
        {
            "place": "stages",
            "kind": "levit",
            "each": "=num_attention_heads",
            "heads": "=each",
            "shape": RESOLUTION,
            "tensor": "attention_biases",
        },
        {
            "place": "between",
            "kind": "levit",
            "each": "=num_attention_heads[:len(num_attention_heads) - 1]",
            "heads": "=hidden_sizes[i] // key_dim[0]",
            "shape": RESOLUTION,
            "about": {"query_stride": 2},
            "tensor": "attention_biases",
        },
    ],
    "dinat": [
        {
            "place": "stages",
            "kind": "swin",
            "each": "=num_heads",
            "heads": "=each",
            "window": "=pair(kernel_size)",
            "outside": "zero",
            "code": "NeighborhoodAttention",
            "about": {"neighbours": "=kernel_size", "dilations": "=dilations[i]", "stored": "keys minus queries"},
        }
    ],
    "vit_mae": [grid(PARAMETER, 1, BICUBIC, about={"kept_fixed": True})],
    "aimv2_vision_model": [
        grid(TABLE) | {"when": "=not is_native"},
        sinusoid(WIDTH, "Aimv2VisionEmbeddings", axes=2, order=[1, 0], when="=is_native"),
    ],
    "videoprism_vision_model": [
        grid(PARAMETER, 0, SMOOTH_BILINEAR, "=patches(image_size, tubelet_size[1])")
        | {"place": "patches", "tensor": "spatial_embeddings.position_embeddings"},
        learned("temporal_embeddings.position_embeddings", "=num_frames", place="frames")
        | {
            "about": {"shape": "=(num_frames,)", "resize": SMOOTH_BILINEAR}
            | {"axes": ["frame"], "order": PATCH_BY_PATCH}
        },
    ],
    "sam2_hiera_det_model": [
        learned("pos_embed", "=prod(window_positional_embedding_background_size)", place="patches")
        | {"about": {"shape": "=window_positional_embedding_background_size", "resize": BICUBIC, **CHANNELS_FIRST}},
        learned("pos_embed_window", "=window_size_per_stage[0] ** 2", place="windows")
        | {"about": {"shape": "=pair(window_size_per_stage[0])", "resize": {"method": "tile"}, **CHANNELS_FIRST}},
    ],
    "mllama_vision_model": [
        {
            "place": place,
            "kind": "tiles",
            "arrangements": "=len(supported_aspect_ratios) + 1",
            "tiles": "=max_num_tiles",
        }
        | {"patches": patches, "features": WIDTH, "shared": shared, "tensor": f"{tensor}_embedding{weight}"}
        | {"about": {"axes": ["aspect_ratio_id", "tile", "patch"]}}
        for place, tensor, weight, patches, shared in (
            (
                "patches",
                "gated_positional_embedding.tile",
                ".weight",
                "=1 + prod(patches(image_size, patch_size))",
                True,
            ),
            ("before", "pre_tile_positional", ".embedding.weight", 1, False),
            ("behind", "post_tile_positional", ".embedding.weight", 1, False),
        )
    ],
    "gemma4_vision": [
        {"place": "", "kind": "axial", "shape": "=pair(position_embedding_size)", "features": WIDTH, "join": "add"}
        | {"code": "Gemma4VisionPatchEmbedder", "about": {"axes": ["x", "y"], "zero_padding": True}}
    ],
    "gemma4_unified_vision": [
        {"place": "", "kind": "axial", "shape": "=pair(mm_posemb_size)", "features": "=mm_embed_dim", "join": "add"}
        | {"code": "Gemma4UnifiedVisionEmbedder", "about": {"axes": ["x", "y"], "zero_padding": True}}
    ],
    "pix2struct_vision_model": [
        {"place": "", "kind": "axial", "shape": "=pair(seq_len)", "features": WIDTH, "join": "add"}
        | {"tensor": "row_embedder.weight", "about": {"axes": ["row", "column"]}}
    ],
    "kosmos_2_5_vision_model": [
        {"place": "", "kind": "axial", "shape": "=pair(max_num_patches)", "features": WIDTH, "join": "add"}
        | {"tensor": "row_embedder.weight", "about": {"axes": ["row", "column"]}}
    ],
    "florence_vision": [
        {
            "place": "patches",
            "kind": "axial",
            "shape": "=pair(max_position_embeddings)",
            "features": "=embed_dim[len(embed_dim) - 1]",
            "join": "concatenate",
            "order": [1, 0],
            "code": "Florence2VisionLearnedAbsolutePositionEmbedding2D",
        },
        sinusoid(
            "=embed_dim[len(embed_dim) - 1]",
            "Florence2VisionPositionalEmbeddingCosine1D",
            "interleaved",
            place="frames",
        ),
    ],
    "reformer": [
        {
            "place": "",
            "kind": "axial",
            "shape": "=axial_pos_shape",
            "features": "=sum(axial_pos_embds_dim)",
            "channels": "=axial_pos_embds_dim",
            "join": "concatenate",
            "when": "=axial_pos_embds",
            "code": "AxialPositionEmbeddings",
        },
        learned("embeddings.position_embeddings.embedding.weight", when="=not axial_pos_embds"),
    ],
}
PROMPTS = (
    "edgetam_prompt_encoder:EdgeTam edgetam_video_prompt_encoder:EdgeTamVideo sam2_prompt_encoder:Sam2 "
    "sam2_video_prompt_encoder:Sam2Video sam3_tracker_prompt_encoder:Sam3Tracker "
    "sam3_tracker_video_prompt_encoder:Sam3TrackerVideo"
)
for name in PROMPTS.split():
    name, _, prefix = name.partition(":")
    ROWS[name] = [
        {"place": "points", "kind": "fourier", "features": WIDTH, "stddev": "=scale"}
        | {"code": f"{prefix}PositionalEmbedding", "about": {"positions": "2 (x, y) / (width, height) - 1"}}
    ]
for name, prefix in (("sam_prompt_encoder", "Sam"), ("sam_hq_prompt_encoder", "SamHQ")):
    ROWS[name] = [
        {"place": "points", "kind": "fourier", "features": WIDTH, "stddev": "=hidden_size / 2"}
        | {"code": f"{prefix}PositionalEmbedding", "about": {"positions": "2 (x, y) / (width, height) - 1"}}
    ]
for name, prefix in (("sam3", "Sam3"), ("sam3_lite_text", "Sam3LiteText")):
    code = f"{prefix}SinePositionEmbedding"
    ROWS[f"{name}_detr_decoder"] = [
        sinusoid("=2 * hidden_size", code, "interleaved", place="boxes", axes=4, order=[1, 0, 2, 3], fractional=True)
        | {"scale": TAU, "about": {"positions": "x, y, width, height between 0 and 1"}},
        {"place": "attention", "kind": "box_rpb", "heads": "=num_attention_heads", "hidden": WIDTH}
        | {"shape": "=(72, 72)", "code": f"{prefix}DetrDecoder"},
    ]
    ROWS[f"{name}_geometry_encoder"] = [
        sinusoid(WIDTH, code, "interleaved", place="points", axes=2, order=[1, 0], fractional=True)
        | {"scale": TAU, "about": {"positions": "x, y between 0 and 1", "followed_by": ["height", "width"]}}
    ]


# Content: Transformer-XL, Shaw, DeBERTa, and others
def xl(place, heads, features=WIDTH, layout="interleaved", denominator="half", biases=True, dim=None, **rest):
    return {
        "place": place,
        "kind": "transformer_xl",
        "heads": heads,
        "dim": dim or f"{features} // {heads[1:]}",
        "features": features,
        "layout": layout,
        "denominator": denominator,
        "biases": biases,
        **rest,
    }


FUNNEL = {"without_positions": "=1 if separate_cls else 0", "stored": "features first"}


def shaw(heads, dim, left, right, kind="shaw", place="", **rest):
    return {"place": place, "kind": kind, "heads": heads, "dim": dim, "left": left, "right": right, **rest}


ROWS |= {
    "parakeet_encoder": [xl("", "=num_attention_heads", code="ParakeetEncoderAttention")],
    "nemotron_asr_streaming_encoder": [xl("", "=num_attention_heads", code="NemotronAsrStreamingEncoderAttention")],
    "fastspeech2_conformer": [
        xl(part, f"={part}_num_attention_heads", code="FastSpeech2ConformerAttention")
        for part in ("encoder", "decoder")
    ],
    "xlnet": [
        xl("", "=n_head", "=d_model", "sin_cos", dim="=d_head", code="XLNetRelativeAttention")
        | {
            "max_distance": "=clamp_len if clamp_len > 0 else None",
            "about": {"both_directions": "=bi_data", "stored": "features first"},
        }
    ],
    "funnel": [
        xl(place, "=n_head", "=d_model", "sin_cos", dim="=d_head", code="FunnelRelMultiheadAttention") | rest
        for place, rest in (
            (
                "encoder",
                {"each": "=range(len(block_sizes))"}
                | {"about": {"stride": "=2 ** i", "first": "=1 - 2 ** i if separate_cls else 0", **FUNNEL}},
            ),
            ("decoder", {"about": {"stride": 1, "first": 0, **FUNNEL}}),
        )
    ],
    "gemma3n_audio": [
        xl("", "=conf_num_attention_heads", denominator="half_minus_1", layout="sin_cos", biases=False)
        | {"code": "Gemma3nAudioRelativePositionEmbedding"}
    ],
    "gemma4_audio": [
        xl("", "=num_attention_heads", denominator="half_minus_1", layout="sin_cos", biases=False)
        | {"code": "Gemma4AudioRelPositionalEncoding"}
        | {"requires": ["=attention_chunk_size == attention_context_left - 1", "=attention_context_right == 0"]}
    ],
    "wav2vec2-conformer": [
        xl("attention", "=num_attention_heads", code="Wav2Vec2ConformerSelfAttention")
        | {"when": "=position_embeddings_type == 'relative'", "instead_of_rotation": True}
    ],
    "wav2vec2-bert": [
        xl("", "=num_attention_heads", code="Wav2Vec2BertSelfAttention")
        | {"when": "=position_embeddings_type == 'relative'", "instead_of_rotation": True},
        shaw("=num_attention_heads", HEAD, "=left_max_position_embeddings", "=right_max_position_embeddings")
        | {"tensor": "distance_embedding.weight", "when": "=position_embeddings_type == 'relative_key'"}
        | {"instead_of_rotation": True},
    ],
    "vits": [
        shaw(
            "=num_attention_heads",
            HEAD,
            "=window_size",
            "=window_size",
            kind,
            place,
            outside="zero",
            tensor=tensor,
            when="=window_size",
        )
        for kind, place, tensor in (("shaw", "keys", "emb_rel_k"), ("shaw_values", "values", "emb_rel_v"))
    ],
    "granite_speech5_encoder": [
        shaw("=num_attention_heads", "=head_dim", "=context_size", "=context_size")
        | {"code": "GraniteSpeech5EncoderAttention"}
        | {"about": {"zero_at": "=max_position_embeddings", "within": "=context_size"}}
    ],
    "phi4_multimodal_audio": [
        {"place": "", "kind": "clipped", "heads": "=num_attention_heads", "symmetric": "=bias_symmetric"}
        | {"left": "=bias_max_distance - 1 if bias_symmetric else bias_max_distance", "right": "=bias_max_distance - 1"}
        | {"tensor": "relative_attention_bias_layer.bias_values.weight"}
    ],
    "cpmant": [
        {"place": "", "kind": "t5", "heads": "=num_attention_heads", "buckets": "=position_bias_num_buckets"}
        | {
            "max_distance": "=position_bias_max_distance",
            "bidirectional": True,
            "code": "CpmAntSegmentPositionEmbedding",
        }
        | {"about": {"rows_between_segments": "=segment_types ** 2"}}
    ],
}
for name in ("granite_speech_encoder", "granite_speech_plus_encoder"):
    code = (
        "GraniteSpeechConformerAttention" if name == "granite_speech_encoder" else "GraniteSpeechPlusConformerAttention"
    )
    ROWS[name] = [
        shaw("=num_heads", "=dim_head", "=context_size", "=context_size")
        | {"code": code, "about": {"zero_at": "=max_pos_emb", "within": "=context_size"}}
    ]
ROWS["seamless_m4t"].append(
    xl("speech_encoder", "=speech_encoder_attention_heads", code="SeamlessM4TConformerSelfAttention")
    | {"when": "=position_embeddings_type == 'relative'"}
)
UNITS = sinusoid(WIDTH, "SeamlessM4TSinusoidalPositionalEmbedding", **TENSOR2TENSOR, odd="zero", place="unit_decoder")
ROWS["seamless_m4t"].append(UNITS | {"about": PADDING | {"first": "=t2u_pad_token_id + 1"}})
ROWS["seamless_m4t_v2"] += [
    UNITS
    | {"place": f"unit_decoder.{part}", "code": "SeamlessM4Tv2SinusoidalPositionalEmbedding", "learned_amplitude": True}
    | {"about": {"first": "=t2u_pad_token_id + 1"}}
    for part in ("characters", "units")
]
ROWS["seamless_m4t_v2"].append(
    shaw(
        "=speech_encoder_attention_heads",
        "=hidden_size // speech_encoder_attention_heads",
        "=left_max_position_embeddings",
        "=right_max_position_embeddings",
    )
    | {
        "place": "speech_encoder",
        "tensor": "distance_embedding.weight",
        "when": "=position_embeddings_type == 'relative_key'",
    }
)
ROWS["speecht5"].append(
    shaw(
        "=encoder_attention_heads",
        "=hidden_size // encoder_attention_heads",
        "=encoder_max_relative_position - 1",
        "=encoder_max_relative_position",
    )
    | {"place": "encoder", "tensor": "pe_k.weight", "about": {"zero_at": "=encoder_max_relative_position"}}
)
for name in ("inkling_text", "inkling2_text"):
    sliding = "layer_types[i] == 'hybrid_sliding'"
    ROWS[name] = [
        {"place": "layers", "kind": "relative_logits", "each": "=range(num_hidden_layers)"}
        | {"heads": f"=swa_num_attention_heads if {sliding} else num_attention_heads", "features": "=d_rel"}
        | {"extent": f"=sliding_window_size if {sliding} else rel_extent", "tensor": "rel_logits_proj.proj"}
    ]


def deberta(buckets):
    return {
        "place": "attention",
        "kind": "deberta",
        "heads": "=num_attention_heads",
        "dim": HEAD,
        "max_distance": "=max_relative_positions if max_relative_positions and max_relative_positions > 0"
        " else max_position_embeddings",
        "buckets": buckets,
        "kinds": "=pos_att_type",
        "when": "=relative_attention",
    }


ROWS["deberta"].append(deberta(None) | {"code": "DisentangledSelfAttention"})
ROWS["deberta-v2"].append(
    deberta("=position_buckets if position_buckets else None") | {"code": "DisentangledSelfAttention"}
)
ROWS["sew-d"] = [
    deberta("=position_buckets if position_buckets else None") | {"code": "DisentangledSelfAttention"},
]
ROWS["patchtst"] = [
    learned("position_enc", "=(max(context_length, patch_length) - patch_length) // patch_stride + 1 + use_cls_token")
    | {"features": "=d_model", "about": {"kept_fixed": "=positional_encoding_type == 'sincos'"}}
]
ROWS["patchtsmixer"] = [
    learned("position_enc", "=(max(context_length, patch_length) - patch_length) // patch_stride + 1", "=d_model")
    | {"when": "=use_positional_encoding", "about": {"kept_fixed": "=positional_encoding_type == 'sincos'"}}
]


def convolution(prefix, place="frames", **rest):
    """wav2vec 2.0: a convolution over neighbouring frames, which is added to them; `conv_positions`."""
    return {
        "place": place,
        "kind": "convolution",
        "code": f"{prefix}PositionalConvEmbedding",
        "features": WIDTH,
        "kernel": "=num_conv_pos_embeddings",
        "groups": "=num_conv_pos_embedding_groups",
        "stride": 1,
        "layers": 1,
        "normalize": False,
        "weight_norm": True,
        **rest,
    }


ROWS |= {
    "data2vec-audio": [
        convolution("Data2VecAudio", kernel="=conv_pos_kernel_size", layers="=num_conv_pos_embeddings")
        | {"normalize": True, "weight_norm": False}
    ],
    "hubert": [convolution("Hubert", weight_norm="=not conv_pos_batch_norm")],
    "sew": [convolution("SEW", stride="=squeeze_factor")],
    "unispeech": [convolution("UniSpeech")],
    "unispeech-sat": [convolution("UniSpeechSat")],
    "wav2vec2": [convolution("Wav2Vec2")],
    "wavlm": [
        convolution("WavLM"),
        {"place": "attention", "kind": "gated_t5", "heads": "=num_attention_heads", "features": WIDTH}
        | {"buckets": "=num_buckets", "max_distance": "=max_bucket_distance", "code": "WavLMAttention"},
    ],
}
ROWS["sew-d"].append(convolution("SEWD", stride="=squeeze_factor"))
ROWS["speecht5"].append(convolution("SpeechT5"))
ROWS["wav2vec2-conformer"].append(convolution("Wav2Vec2Conformer"))


def pixels(prefix, features="=d_model", place="pixels", offset=0.0, scale=TAU, **rest):
    """DETR: rows and columns of the real pixels of a padded picture."""
    about = {"pixels": {"normalize": True, "offset": offset, "scale": scale}, **rest.pop("about", {})}
    code = f"{prefix}SinePositionEmbedding"
    return sinusoid(features, code, "interleaved", place=place, axes=2, fractional=True, about=about, **rest)


DETRS = {"detr": "Detr", "conditional_detr": "ConditionalDetr", "deformable_detr": "DeformableDetr"}
DETRS |= {"table-transformer": "TableTransformer", "grounding-dino": "GroundingDino"}
DETRS |= {"mm-grounding-dino": "MMGroundingDino"}
for name, prefix in DETRS.items():
    rest = {"base": "=1.0 * positional_embedding_temperature"} if name.endswith("dino") else {}
    ROWS[name] = [
        pixels(prefix, offset=-0.5 if name == "deformable_detr" else 0.0, **rest)
        | {"when": "=position_embedding_type == 'sine'"},
        {"place": "pixels", "kind": "axial", "shape": "=(50, 50)", "features": "=d_model", "join": "concatenate"}
        | {"order": [1, 0], "when": "=position_embedding_type == 'learned'", "about": {"axes": ["row", "column"]}}
        | {"code": f"{prefix}LearnedPositionEmbedding"},
    ]
ROWS |= {
    "dab-detr": [
        pixels(
            "DabDetr",
            WIDTH,
            base="=1.0 * temperature_width",
            scale=f"=sine_position_embedding_scale if sine_position_embedding_scale else {TAU}",
            requires=["=temperature_height == temperature_width"],
        )
    ],
    "mask2former": [
        pixels("Mask2Former", "=feature_size", "pixel_decoder"),
        pixels("Mask2Former", "=hidden_dim", "decoder"),
    ],
    "oneformer": [
        pixels("OneFormer", "=conv_dim", "pixel_decoder"),
        pixels("OneFormer", "=hidden_dim", "decoder"),
    ],
    "maskformer": [pixels("MaskFormer", "=decoder_config['d_model']", "decoder")],
}

RTDETRS = {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine", "deimv2": "Deimv2"}
RTDETRS |= {f"pp_doclayout_v{n}": f"PPDocLayoutV{n}" for n in (2, 3, 4)}
for name, prefix in RTDETRS.items():
    ROWS[name] = [
        sinusoid("=encoder_hidden_dim", f"{prefix}SinePositionEmbedding", place="encoder", axes=2)
        | {"base": "=1.0 * positional_encoding_temperature", "when": "=eval_size == None"}
    ]
ROWS["granite_docling"] = [
    sinusoid("=vision_config['out_hidden_size']", "GraniteDoclingPositionEmbedding", place="connector", axes=2)
    | {"order": [1, 0]}
]
for name, prefix in (("sam2_vision_model", "Sam2"), ("edgetam_vision_model", "EdgeTam"), ("sam3_vision_model", "Sam3")):
    ROWS[name] = [pixels(prefix, "=fpn_hidden_size", "levels")]
for name, prefix in (("sam2_video", "Sam2Video"), ("sam3_tracker_video", "Sam3TrackerVideo")):
    code = f"{prefix}PositionEmbeddingSine"
    ROWS[name] = [pixels(prefix, "=memory_encoder_output_channels", "memory") | {"code": code}]
ROWS["edgetam_video"] = [
    pixels("EdgeTamVideo", f"={part}", place) | {"code": "EdgeTamVideoPositionEmbeddingSine"}
    for part, place in (
        ("memory_encoder_output_channels", "memory"),
        ("perceiver_resampler_hidden_size", "perceiver_resampler"),
    )
]

# Read by hand: these run another type's code, or their default configuration is no model
ROWS["layoutxlm"] = ROWS["layoutlmv2"]
ROWS["pp_chart2table_vision"] = ROWS["got_ocr2_vision"]
CODE_OF = {"layoutxlm": "layoutlmv2", "pp_chart2table_vision": "got_ocr2_vision"}

# Where the patches of a picture stand for the rotation, by the numbers of a position in their order
ROW_COLUMN, COLUMN_ROW = {"axes": ["row", "column"]}, {"axes": ["column", "row"]}
MERGING = f"""{QWENS} dots3_note_vision_encoder ernie4_5_vl_moe_vision exaone4_5_vision glm4v_moe_vision glm4v_vision
glm5_next_vision glm_ocr_vision lfm3_vl_vision qwen2_5_omni_vision_encoder qwen2_5_vl_vision qwen2_vl_vision"""
ROTATIONS = {name: ROW_COLUMN | MERGED for name in MERGING.split()}
ROTATIONS |= {name: ROW_COLUMN for name in ("kimi_k25_vision", "paddleocr_vl_vision", "pixtral", "step3p5_vision")}
ROTATIONS |= {
    name: COLUMN_ROW
    for name in ("edgetam_video", "gemma4_vision", "sam2_video", "sam3_tracker_video", "sam3_vit_model")
}
ROTATIONS |= {name: COLUMN_ROW | {"first": 1} for name in ("muse_glimmer_vision", "muse_spark_vision")}
ROTATIONS |= {
    name: ROW_COLUMN | {"tokens_in_front_without": 1, "angles_in_front": "class_pos_emb"}
    for name in ("mlcd", "mlcd_vision_model")
}
ROTATIONS |= {
    name: ROW_COLUMN | {"centers": True, "prefix": "=1 + num_register_tokens"}
    for name in ("dinov3_vit", "eomt_dinov3", "sapiens2")
}
ROTATIONS |= {
    "efficientloftr": ROW_COLUMN | {"first": 1},
    "inkling2_vision": ROW_COLUMN | MERGED | {"first": 1, "prefix": 1},
    "llama4_vision_model": ROW_COLUMN | {"first": 1, "behind": 1},
    "minimax_m3_vl_vision": {"axes": ["frame", "row", "column"], **MERGED},
    "vjepa2": {"axes": ["frame", "row", "column"]},
}
LAYERS = {  # that see windows, and those that see the whole picture, where patches stand closer by a factor
    "sam3_vit_model": {
        "kinds": "=range(num_hidden_layers)",
        "kind": "='global' if i in global_attn_indexes else 'window'",
        "factors": {"global": "=patches(image_size, patch_size)[0] / window_size"},
    }
}

# Without a row: why
NO_SCHEME = {
    "perceiver": "positions come in with the inputs' preprocessor, which the configuration does not name",
}
NO_SCHEME |= {
    name: "the only positions are those that a convolution over zero padding sees"
    for name in ("cvt", "glpn", "pvt_v2", "segformer")
}
NO_SCHEME |= {
    "gemma4_assistant": "transformers' own default configuration is refused by its class",
    "nougat": "transformers' own default configuration fails; its parts are donut-swin and mbart",
    "rag": "made of two models that its file names",
}


# No positions of their own: convolutional and recurrent networks, codecs, parts that are given what their model made
NOTHING = """
align_vision_model bit blip_2_qformer chameleon_vqgan convnext convnextv2 dac dinov3_convnext edgetam_mask_decoder
edgetam_video_mask_decoder efficientnet emu3_vqgan encodec falcon_mamba fastspeech2_conformer_hifigan
flava_image_codebook flava_multimodal_model focalnet gemma3n_vision gemma4_unified_audio glm5_next_text
glm_image_vqmodel hgnet_v2 idefics2_perceiver idefics_perciever inkling_audio inkling_vision jamba janus_vqgan
kimi_linear mamba mamba2 mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 molmo2_adapter moonshine_streaming_encoder
moshi_depth muse_spark_audio nemotron_h poolformer pp_lcnet pp_lcnet_v3 pp_lcnet_v4 qwen2_5_omni_bigvgan regnet resnet
rt_detr_resnet rwkv sam2_mask_decoder sam2_video_mask_decoder sam3_detr_encoder sam3_lite_text_detr_encoder
sam3_lite_text_mask_decoder sam3_mask_decoder sam3_tracker_mask_decoder sam3_tracker_video_mask_decoder
sam_hq_mask_decoder sam_mask_decoder sapiens2_head speecht5_hifigan superpoint swiftformer textnet timm_backbone
timm_wrapper univnet uvdoc_backbone vibevoice_acoustic_tokenizer vibevoice_acoustic_tokenizer_decoder
vibevoice_acoustic_tokenizer_encoder xlstm zamba
"""
WITHOUT = NOTHING.split()
