"""transformers' `rope_parameters` and scalings: there and back, strict, and nothing ignored."""

import dataclasses
import json
from pathlib import Path

import pytest
from schemes import LENGTH_SCALINGS, SCALINGS

import posembed_jax as pe
from posembed_jax import hf

LONGEST = 16  # the original length of the dynamic NTK in LENGTH_SCALINGS
MSCALE = pe.YaRN(factor=40.0, original_length=64, beta_fast=20.0, truncate=False, mscale=1.0, mscale_all_dim=0.7)
AMPLITUDES = dataclasses.replace(LENGTH_SCALINGS["rope_longrope"], attention_factor=1.1, long_attention_factor=1.3)
ALL = {**SCALINGS, **LENGTH_SCALINGS, "none": None, "yarn_mscale": MSCALE, "longrope_mscale": AMPLITUDES}


@pytest.mark.parametrize("name", ALL)
def test_there_and_back(name):
    parameters = hf.rope_parameters(ALL[name], base=500_000.0)
    assert parameters["rope_theta"] == 500_000.0
    assert hf.scaling(parameters, max_position_embeddings=LONGEST) == ALL[name]
    again = hf.rope_parameters(hf.scaling(parameters, max_position_embeddings=LONGEST), base=500_000.0)
    assert again == parameters


def facts(parameters):
    """The frequencies and the amplitude of a scaling, short and long."""
    found = hf.scaling(parameters, max_position_embeddings=LONGEST)
    lengths = (10, 24) if isinstance(found, pe.LongRoPE | pe.DynamicNTK) else (None,)
    ropes = [pe.RoPE(dim=8, layout="half", base=500.0, scaling=found, length=length) for length in lengths]
    return [[*map(float, rope.frequencies()), rope.amplitude()] for rope in ropes]


def changed(value):
    if isinstance(value, bool):
        return not value
    return [1.5 * x for x in value] if isinstance(value, list) else value * 2 if isinstance(value, int) else value * 0.7


WIDE = pe.YaRN(factor=4.0, original_length=512, beta_slow=2.0, truncate=False, mscale=0.7, mscale_all_dim=0.3)
HALF = {"rope_proportional": pe.Proportional(fraction=0.75), "rope_yarn": WIDE}
MUTABLE = {**SCALINGS, **LENGTH_SCALINGS, **HALF, "longrope_mscale": AMPLITUDES}


@pytest.mark.parametrize("name", MUTABLE)
def test_no_key_is_ignored(name):
    parameters = hf.rope_parameters(MUTABLE[name], base=500.0)
    before = facts(parameters)
    for key in parameters.keys() - {"rope_type", "rope_theta"}:
        assert facts({**parameters, key: changed(parameters[key])}) != before, key
        with pytest.raises(ValueError, match="to be without"):
            facts({**parameters, key + "s": 1.0})


@pytest.mark.parametrize(
    "parameters, expected",
    [
        ({"type": "linear", "factor": 2.5}, pe.Linear(factor=2.5)),
        ({"type": "mrope", "mrope_section": [2, 1, 1]}, None),
        ({"rope_theta": 1e6}, None),
        ({"rope_type": "axial", "rope_theta": 100.0}, None),
        ({"rope_type": "default", "type": "mrope", "mrope_section": [2, 1, 1]}, None),
        ({"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "mscale": 1.0}, pe.NTK(factor=1000.0)),
        (
            {"type": "yarn", "factor": None, "original_max_position_embeddings": 4},
            pe.YaRN(factor=4.0, original_length=4),
        ),
        ({"type": "yarn", "factor": 4.0, "finetuned": True}, pe.YaRN(factor=4.0, original_length=LONGEST)),
        (
            {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.0},
            pe.YaRN(factor=4.0, original_length=LONGEST, mscale=1.0),
        ),
        (
            {"type": "su", "short_factor": [1.0], "long_factor": [2.0], "original_max_position_embeddings": 8},
            pe.LongRoPE(short_factor=(1.0,), long_factor=(2.0,), original_length=8, attention_factor=(4 / 3) ** 0.5),
        ),
    ],
)
def test_forms_of_published_files(parameters, expected):
    found = hf.scaling(parameters, max_position_embeddings=LONGEST)
    if isinstance(expected, pe.LongRoPE):
        assert found.attention_factor == pytest.approx(expected.attention_factor, rel=1e-12)
    else:
        assert found == expected


# Models

KNOWN = json.loads((Path(hf.__file__).parent / "rotary_types.json").read_text())
# transformers' own classes fail on these: the sections of the default do not fit the width of its heads
BROKEN = {"glm4v_text", "glm4v_moe_text", "glm_image_text"}
BROKEN |= {name for name, facts in KNOWN["composites"].items() if BROKEN & set(facts["sub_configs"].values())}


def resolved(model_type):
    try:
        return hf.from_config({"model_type": model_type})
    except ValueError:
        return None


def test_all_but_broken_types_resolve():
    leaves = {name for name in KNOWN["types"] if resolved(name) is None}
    assert leaves == BROKEN & set(KNOWN["types"])
    assert len(leaves) <= 0.02 * len(KNOWN["types"])


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(set(KNOWN["types"]) - BROKEN))
def test_a_model_is_itself_after_a_file(model_type):
    found = resolved(model_type)
    assert hf.from_config(json.loads(json.dumps(hf.to_config(found)))) == found


ORIGINAL = {"original_max_position_embeddings": 4096}
KIMI = {"type": "yarn", "factor": 32.0, "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
SCOUT = {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0}


@pytest.mark.parametrize(
    "file",
    [
        {"model_type": "deepseek_v3", "rope_theta": 5e4, "rope_scaling": KIMI | ORIGINAL},
        {"model_type": "llama4_text", "no_rope_layers": [], "rope_theta": 5e5, "rope_scaling": SCOUT | ORIGINAL},
        {"model_type": "cohere2", "rotary_pct": 1.0, "rope_theta": 5e4, "rope_scaling": None},
        {"model_type": "bamba", "partial_rotary_factor": 0.5, "attn_rotary_emb": 64, "rope_theta": 1e4},
    ],
    ids=["Kimi K2", "Llama 4 Scout", "Command R7B", "Bamba"],
)
def test_forms_of_published_files_that_say_things_twice(file):
    found = hf.from_config(file)
    assert (
        hf.from_config(json.loads(json.dumps(hf.to_config(found))))
        == found
        == hf.from_config(file | {"rope_pct": None})
    )


def test_phi_3_5_moe():
    """Its file says the original length twice, and an amplitude for sequences of either length."""
    scaling = {"type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}
    scaling |= {"short_mscale": 1.25, "long_mscale": 1.5, "original_max_position_embeddings": 4096}
    file = {
        "model_type": "phimoe",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 4096,
        "rope_scaling": scaling,
    }
    found = hf.from_config(file)
    assert [dataclasses.replace(found.rotation, length=n).amplitude() for n in (4096, 4097)] == [1.25, 1.5]
    assert hf.from_config(json.loads(json.dumps(hf.to_config(found)))) == found
    with pytest.raises(ValueError, match="original_max_position_embeddings is 2048, but"):
        hf.from_config(file | {"original_max_position_embeddings": 2048})
    upstream = hf.from_config(file, follow_upstream_bugs=True).rotation  # which takes the short factors at any length
    assert upstream.scaling == dataclasses.replace(found.rotation.scaling, long_factor=(1.0,) * 64)


def test_a_changed_scaling_is_written():
    found = hf.from_config({"model_type": "llama"})
    rope = dataclasses.replace(found.rotation, base=5e5, scaling=pe.Linear(factor=4.0))
    changed = dataclasses.replace(found, rotations={"": rope})
    assert hf.from_config(hf.to_config(changed)) == changed


# None, since each channel of a query is multiplied by a parameter of its own
LEARNED_SCALES = {"timesfm2_5"}


@pytest.mark.parametrize(
    "config, scale",
    [
        ({"model_type": "llama"}, 128**-0.5),
        ({"model_type": "gemma3_text", "query_pre_attn_scalar": 100}, 0.1),
        ({"model_type": "gemma4_text"}, 1.0),
        ({"model_type": "granite", "attention_multiplier": 0.25}, 0.25),
        ({"model_type": "gptj"}, 256**-0.5),
        ({"model_type": "roformer"}, 64**-0.5),
        ({"model_type": "modernbert"}, 64**-0.5),
        ({"model_type": "openai_privacy_filter"}, 64**-0.5),
        ({"model_type": "zamba2", "use_mem_rope": True}, 80**-0.5),
        ({"model_type": "sam2_video"}, 256**-0.5),
        ({"model_type": "dots3_note_text"}, {"indexed_attention": 192**-0.5, "sliding_attention": 256**-0.5}),
        (
            {"model_type": "dots3_note_text", "swa_qk_nope_head_dim": 80},
            {"indexed_attention": 192**-0.5, "sliding_attention": 256**-0.5},
        ),
    ],
)
def test_softmax_scales(config, scale):
    assert hf.from_config(config).softmax_scale == pytest.approx(scale, rel=1e-15)


def test_every_rotary_type_has_a_softmax_scale():
    found = {name: hf.from_config({"model_type": name}).softmax_scale for name in set(KNOWN["types"]) - BROKEN}
    assert {name for name, scale in found.items() if scale is None} == LEARNED_SCALES


def test_a_softmax_scale_of_yarn():
    """DeepSeek's: the square of what YaRN would multiply cos and sin by, with mscale_all_dim."""
    yarn = {
        "type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    found = hf.from_config({"model_type": "deepseek_v3", "rope_scaling": yarn, "rope_theta": 1e4})
    assert found.softmax_scale == pytest.approx(pe.yarn_softmax_scale(192, factor=40.0, mscale_all_dim=1.0), rel=1e-15)


def test_the_heads_of_qwen2_vl_vision_share_embed_dim():
    """Its hidden_size is the text model's, into which it projects."""
    found = hf.from_config({"model_type": "qwen2_vl", "vision_config": {"embed_dim": 32, "num_heads": 2}})
    assert found.towers["vision_config"].softmax_scale == 16**-0.5
    assert hf.from_config({"model_type": "qwen2_vl_vision"}).softmax_scale == pytest.approx(80**-0.5, rel=1e-15)


def test_numbering_is_found_wherever_the_file_has_it():
    seen = {"spatial_merge_size": 3}
    for config in (
        {"model_type": "qwen2_5_omni", "thinker_config": {"vision_config": seen, "position_id_per_seconds": 7}},
        {"model_type": "qwen2_5_omni_thinker", "vision_config": seen, "position_id_per_seconds": 7},
    ):
        found = hf.from_config(config)
        assert found.numbering == hf.multimodal(config)
        assert (found.position_ids, found.numbering["merge"], found.numbering["tokens_per_second"]) == (
            "multimodal",
            3,
            7,
        )
    sections = {"rope_parameters": {"rope_type": "default", "xdrope_section": [16, 16, 32]}}
    assert hf.multimodal({"model_type": "hunyuan_vl", "text_config": sections}) == {"merge": 2, "axes": 3}
    ids = {"image_start_id": 1, "image_end_id": 2, "slice_start_id": 3, "slice_end_id": 4, "newline_id": 5}
    found = hf.from_config({"model_type": "minicpmv4_7", "downsample_mode": "4x", **ids})
    assert (found.position_ids, found.numbering) == ("canvas", {"merge": 2, **ids})
    assert hf.from_config({"model_type": "minicpmv4_7"}).numbering == {"merge": 4} | dict.fromkeys(ids)
    assert hf.from_config({"model_type": "llama"}).numbering is None


def test_interleaved_sections_end_where_the_pairs_do():
    """As slices do: the sections of Qwen3-VL's class in a smaller head."""
    small = {"model_type": "qwen3_vl_text", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [24, 20, 20]}
    assert hf.from_config(small | {"rope_parameters": rope}).rotation.axes.axis == (0, 1, 2, 0, 1, 2, 0, 1)


WINDOWS = SLIDING, FULL = ("sliding_attention", "full_attention")


@pytest.mark.parametrize(
    "config, layers",
    [
        ({"model_type": "cohere2"}, ("", "", "", None)),
        ({"model_type": "cohere2", "sliding_window_pattern": 2}, ("", None, "", None)),
        ({"model_type": "cohere2", "sliding_window": None}, (None,) * 4),
        ({"model_type": "flint", "layer_types": [*WINDOWS] * 2}, ("", None, "", None)),
        ({"model_type": "afmoe", "layer_types": [*WINDOWS] * 2}, ("", None, "", None)),
        ({"model_type": "exaone4"}, ("", "", "", None)),
        ({"model_type": "exaone4", "sliding_window": None}, ("",) * 4),
        ({"model_type": "cohere2_moe", "mlp_layer_types": ["sparse"] * 4}, ("", "", "", None)),
        ({"model_type": "cohere2_moe", "mlp_layer_types": ["sparse"] * 3 + ["dense"]}, ("",) * 4),
        ({"model_type": "smollm3", "no_rope_layers": [0, 1, 1, 0]}, (None, "", "", None)),
        ({"model_type": "llama4_text"}, ("", "", "", None)),
        ({"model_type": "granite_swa", "layer_rope_theta": [0, 1e4, 0, 1e4]}, (None, "", None, "")),
        (
            {"model_type": "granite_swa", "layer_rope_theta": [0, 1e4, 5e5, 1e4]},
            (None, "10000.0", "500000.0", "10000.0"),
        ),
        ({"model_type": "muse_glimmer_text", "rope_theta": 5e5}, ("", "", "", None)),
        ({"model_type": "muse_glimmer_text", "num_hidden_layers": 6}, ("", None, "", "", "", None)),
        ({"model_type": "granitemoehybrid", "layer_types": ["full_attention"] * 4}, (None,) * 4),
        (
            {
                "model_type": "granitemoehybrid",
                "position_embedding_type": "rope",
                "layer_types": ["full_attention"] * 4,
            },
            ("",) * 4,
        ),
        ({"model_type": "zamba2", "num_hidden_layers": 54}, (None,) * 54),
        (
            {"model_type": "zamba2", "use_mem_rope": True, "layer_types": ["linear_attention", "hybrid"] * 2},
            (None, "") * 2,
        ),
        ({"model_type": "olmo_hybrid"}, (None, None, None, "")),
        ({"model_type": "olmo_hybrid", "rope_parameters": {"rope_type": "default", "rope_theta": None}}, (None,) * 4),
        ({"model_type": "deepseek_v4"}, ("compress",) * 4),
        (
            {"model_type": "deepseek_v4", "layer_types": ["sliding_attention"] + ["compressed_sparse_attention"] * 3},
            ("main",) + ("compress",) * 3,
        ),
        ({"model_type": "mllama_text_model"}, ("", "", "", None)),
        ({"model_type": "mllama_text_model", "cross_attention_layers": [0, 2]}, (None, "", None, "")),
        ({"model_type": "molmo2_text"}, ("",) * 4),
        ({"model_type": "molmo2_text", "rope_scaling_layers": [1]}, ("unscaled", "scaled", "unscaled", "unscaled")),
        ({"model_type": "clvp_encoder", "use_rotary_embedding": False}, (None,) * 4),
        # What the file says of its kinds of layers, and files of older names
        ({"model_type": "bamba", "attn_layer_indices": [1, 3]}, (None, "", None, "")),
        ({"model_type": "lfm2", "full_attn_idxs": [2]}, (None, None, "", None)),
        ({"model_type": "qwen3_next", "full_attention_interval": 3}, (None, None, "", None)),
        ({"model_type": "qwen3_5_text", "full_attention_interval": 2}, (None, "", None, "")),
        ({"model_type": "afmoe", "global_attn_every_n_layers": 2}, ("", None, "", None)),
        ({"model_type": "bailing_hybrid", "layer_group_size": 2}, (None, "", None, "")),
        ({"model_type": "recurrent_gemma", "block_types": ["recurrent", "attention"]}, (None, "", None, "")),
        ({"model_type": "smollm3", "no_rope_layer_interval": 2}, ("", None, "", None)),
        ({"model_type": "modernbert", "global_attn_every_n_layers": 2}, (FULL, SLIDING, FULL, SLIDING)),
        ({"model_type": "ultrabert", "attention_windows": [0, 64, 64, 0]}, (FULL, SLIDING, SLIDING, FULL)),
        ({"model_type": "dots3_note_text", "use_sliding_window": False}, ("indexed_attention",) * 4),
        ({"model_type": "dots3_note_text", "layer_types": [FULL] * 4}, ("indexed_attention",) * 4),
        ({"model_type": "deepseek_v4", "compress_ratios": [0, 4, 128, 0, 0]}, ("main", "compress", "compress", "main")),
        ({"model_type": "cohere2_moe", "first_k_dense_replace": 1}, ("",) * 4),
        ({"model_type": "cohere2_moe", "first_k_dense_replace": 0, "sliding_window_pattern": 2}, ("", None, "", None)),
        (
            {"model_type": "zamba2", "use_mem_rope": True, "layers_block_type": ["mamba", "hybrid"] * 2},
            (None, "") * 2,
        ),
        (
            {
                "model_type": "granitemoehybrid",
                "position_embedding_type": "rope",
                "layer_types": ["mamba", "attention", "mamba", "mamba"],
            },
            (None, "", None, None),
        ),
        ({"model_type": "gemma3_text", "layer_types": ["attention"] * 4, "sliding_window_pattern": 6}, (FULL,) * 4),
        (
            {"model_type": "exaone4", "layer_types": [SLIDING] * 3 + [FULL], "sliding_window_pattern": "LLLG"},
            ("", "", "", None),
        ),
        # Lengths that no pattern repeats to
        ({"model_type": "gemma4_text"}, (SLIDING,) * 3 + (FULL,)),
        ({"model_type": "gemma4_text", "num_hidden_layers": 8}, (SLIDING,) * 5 + (FULL, SLIDING, FULL)),
        ({"model_type": "flint"}, (None, None, "", None)),
        ({"model_type": "olmo_hybrid", "num_hidden_layers": 3}, (None, None, "")),
    ],
)
def test_which_layers_rotate(config, layers):
    found = hf.from_config({"num_hidden_layers": 4, **config})
    assert found.layers == layers
    assert hf.from_config(json.loads(json.dumps(hf.to_config(found)))) == found


def test_layers_with_bases_and_scalings_of_their_own():
    granite = {"model_type": "granite_swa", "num_hidden_layers": 3, "layer_rope_theta": [0, 1e4, 5e5]}
    assert {key: rope.base for key, rope in hf.from_config(granite).rotations.items()} == {
        "10000.0": 1e4,
        "500000.0": 5e5,
    }
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    molmo = {"model_type": "molmo2_text", "rope_scaling_layers": [0], "rope_parameters": yarn}
    scaled, unscaled = (hf.from_config(molmo).rotations[key] for key in ("scaled", "unscaled"))
    assert isinstance(scaled.scaling, pe.YaRN)
    assert unscaled == dataclasses.replace(scaled, scaling=None)


def test_lists_with_a_value_for_each_layer():
    """Step 3.5's files, whose lists go on for the layers that predict further tokens; and UltraBERT's."""
    kinds = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    step = {"num_hidden_layers": 3, "num_nextn_predict_layers": 1, "layer_types": kinds}
    step |= {"rope_theta": [5e6, 1e4, 5e6, 5e6], "partial_rotary_factors": [0.5, 1.0, 0.5, 0.5]}
    step |= {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "model_type": "step3p5"}
    found = hf.from_config(step)
    assert found.layers == tuple(kinds[:3])
    full, sliding = (found.rotations[kind] for kind in kinds[:2])
    assert (full.base, full.dim, full.scaling) == (5e6, 64, pe.Linear(factor=2.0))
    assert (sliding.base, sliding.dim, sliding.scaling) == (1e4, 128, None)
    bert = {"model_type": "ultrabert", "num_hidden_layers": 2, "layer_types": [*WINDOWS], "rope_theta": [1e4, 9e5]}
    assert [hf.from_config(bert).rotations[kind].base for kind in WINDOWS] == [1e4, 9e5]


MINISTRAL = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"model_type": "llama4_text"}, pe.SteppedTemperature(beta=0.1, length=8192, offset=1)),
        (
            {"model_type": "llama4_text", "floor_scale": 4, "attn_scale": 0.25},
            pe.SteppedTemperature(beta=0.25, length=4, offset=1),
        ),
        ({"model_type": "llama4_text", "attn_temperature_tuning": False}, None),
        ({"model_type": "ministral3"}, pe.SteppedTemperature(beta=0.1, length=16384)),
        ({"model_type": "mistral4"}, pe.SteppedTemperature(beta=0.1, length=8192)),
        ({"model_type": "ministral3", "rope_parameters": MINISTRAL}, None),
        (
            {"model_type": "ministral3", "rope_parameters": MINISTRAL | {"llama_4_scaling_beta": 0.3}},
            pe.SteppedTemperature(beta=0.3, length=64),
        ),
        ({"model_type": "llama"}, None),
    ],
)
def test_temperatures(config, expected):
    assert hf.from_config(config).temperature == expected


def test_a_file_and_its_folder(tmp_path):
    config = {"model_type": "qwen2", "rope_theta": 1e6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert hf.from_config(tmp_path) == hf.from_config(str(tmp_path / "config.json")) == hf.from_config(config)


@pytest.mark.parametrize(
    "config, wrong",
    [
        ({"model_type": "olmo3", "rope_theta": 1e6}, "sliding_attention"),
        ({"model_type": "nemotron", "rope_percent": 0.25}, "rope_percent"),
        ({"model_type": "minimax", "rope_percent": 64}, "rope_percent"),
    ],
)
def test_upstream_bugs_are_followed_by_name_only(config, wrong):
    with pytest.raises(ValueError, match=wrong):
        hf.from_config(config)
    hf.from_config(config, follow_upstream_bugs=True)
