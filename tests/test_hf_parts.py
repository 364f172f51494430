"""The parts of composites, as transformers reads them: whose class is fixed, what one has that is missing."""

import pytest

import posembed_jax as pe
from posembed_jax import hf

QWEN_VISION = {"depth": 27, "hidden_size": 1152, "num_heads": 16}


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen2_vl", "qwen2_5_vl", "qwen4_exp"])
def test_a_part_that_is_named_as_the_whole(name):
    """Qwen's published files have it so."""
    plain = hf.from_config({"model_type": name, "vision_config": QWEN_VISION})
    named = hf.from_config({"model_type": name, "vision_config": {**QWEN_VISION, "model_type": name}})
    assert named == plain
    assert isinstance(named.towers["vision_config"].rotation, pe.RoPE)


def test_a_vision_tower_of_qwen3_vl():
    found = hf.from_config({"model_type": "qwen3_vl", "vision_config": {**QWEN_VISION, "model_type": "qwen3_vl"}})
    assert found.towers["vision_config"].rotation.dim == 1152 // 16


def test_a_part_of_a_free_class_is_what_it_names():
    found = hf.from_config({"model_type": "llava", "text_config": {"model_type": "gemma3_text"}})
    assert found.towers["text_config"] == hf.from_config({"model_type": "gemma3_text"})
    named = hf.from_config({"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}})
    assert named.towers["text_config"].model_type == "deepseek_v3"


def test_a_part_of_a_fixed_class_may_name_another_with_the_same_schemes():
    found = hf.from_config({"model_type": "idefics2", "vision_config": {"model_type": "siglip_vision_model"}})
    assert found.towers["vision_config"].model_type == "idefics2_vision"
    strange = {"model_type": "qwen3_vl", "text_config": {"model_type": "llama"}}
    found = hf.from_config(strange, follow_upstream_bugs=True)
    assert found.towers["text_config"].model_type == "qwen3_vl_text"


@pytest.mark.parametrize(
    "name, base, layers",
    [("mistral3", 1e9, 40), ("voxtral", 1e8, 30), ("got_ocr2", 1e6, 24), ("llava", 1e4, 32), ("lighton_ocr", 1e6, 28)],
)
def test_a_missing_text_part_is_that_of_the_composite(name, base, layers):
    text = hf.from_config({"model_type": name}).towers["text_config"]
    assert (text.rotation.base, len(text.layers)) == (base, layers)


def test_what_a_part_does_not_say():
    """Most classes have their defaults for a part that is missing alone; Voxtral's complete one that is there."""
    part = {"num_hidden_layers": 3}
    text = hf.from_config({"model_type": "mistral3", "text_config": part}).towers["text_config"]
    assert (text.rotation.base, len(text.layers)) == (1e4, 3)
    text = hf.from_config({"model_type": "voxtral", "text_config": part}).towers["text_config"]
    assert (text.rotation.base, len(text.layers)) == (1e8, 3)
    part |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    text = hf.from_config({"model_type": "voxtral", "text_config": part}).towers["text_config"]
    assert (text.rotation.base, len(text.layers)) == (5e5, 3)


def test_parts_that_a_model_may_lack():
    assert set(hf.from_config({"model_type": "gemma4"}).towers) == {"text_config"}
    with_vision = {"model_type": "gemma4", "vision_config": {}, "audio_config": None}
    assert set(hf.from_config(with_vision).towers) == {"text_config", "vision_config"}


def test_a_text_part_at_the_top():
    found = hf.from_config({"model_type": "qwen2_vl", "rope_theta": 5e5, "vision_config": {"hidden_size": 64}})
    assert found.towers["text_config"].rotation.base == 5e5
    follow = hf.from_config({"model_type": "mistral3", "num_hidden_layers": 2}, follow_upstream_bugs=True)
    assert follow == hf.from_config({"model_type": "mistral3"})


@pytest.mark.parametrize(
    "file",
    [
        {"model_type": "cohere_asr", "head_dim": 64},
        {"model_type": "d_fine", "head_dim": 32},
        {"model_type": "deimv2", "head_dim": 16},
        {"model_type": "blt", "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"model_type": "minimax_m3_vl", "text_config": {"rotary_dim": 64}},
    ],
    ids=lambda file: file["model_type"],
)
def test_what_a_class_writes_at_the_top_and_nothing_reads(file):
    assert hf.from_config(file) == hf.from_config({"model_type": file["model_type"]})


def test_a_backbone_without_a_scheme_may_be_left_out_where_transformers_is_followed():
    file = {"model_type": "llava", "vision_config": {"model_type": "cvt"}}
    assert set(hf.from_config(file, follow_upstream_bugs=True).towers) == {"text_config"}
    with pytest.raises(ValueError, match="'my_llm'"):
        hf.from_config({"model_type": "llava", "text_config": {"model_type": "my_llm"}}, follow_upstream_bugs=True)


@pytest.mark.parametrize("name, key", [("granite_docling", "vision_config"), ("maskformer", "decoder_config")])
def test_a_part_that_is_null_is_missing(name, key):
    assert hf.from_config({"model_type": name, key: None}) == hf.from_config({"model_type": name})
