"""What `hf.from_config` finds beside rotations: tables, sinusoids and biases."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax import hf
from posembed_jax.hf import expressions
from posembed_jax.hf.builders import BUILDERS, CONVOLUTION

KNOWN = json.loads((Path(hf.__file__).parent / "position_types.json").read_text())
BROKEN = {"esm"}  # whose default has no pad_token_id: transformers' own class fails
TYPES = {
    name
    for name, facts in KNOWN["types"].items()
    if all(row["kind"] in {*BUILDERS, CONVOLUTION} for row in facts["places"])
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(TYPES - BROKEN))
def test_a_model_is_itself_after_a_file(model_type):
    found = hf.from_config({"model_type": model_type})
    assert hf.from_config(json.loads(json.dumps(hf.to_config(found)))) == found


def test_forms_of_published_files():
    def found(model_type, **keys):
        return hf.from_config({"model_type": model_type, **keys})

    assert found("gpt2", n_positions=8, n_embd=4).additive == {"": pe.LearnedPositions(length=8, features=4)}
    assert found("gpt2", max_position_embeddings=8, hidden_size=4) == found("gpt2", n_positions=8, n_embd=4)
    roberta = found("roberta", max_position_embeddings=514, pad_token_id=1, position_embedding_type="absolute")
    assert roberta.additive[""] == pe.LearnedPositions(length=512, features=768, index_offset=2)
    assert roberta.about[""] == {"position_ids": "padding"}
    t5 = found("t5", num_heads=2, relative_attention_num_buckets=8, n_positions=512)
    assert t5.biases["decoder"] == pe.T5Bias(heads=2, buckets=8, bidirectional=False)
    assert set(found("whisper").additive) == {"encoder", "decoder"}
    assert found("distilbert").additive[""] == pe.LearnedPositions(length=512, features=768)
    sinusoid = pe.Sinusoidal(features=768, layout="interleaved")
    assert found("distilbert", sinusoidal_pos_embds=True).additive[""] == sinusoid


def test_one_thing_instead_of_another():
    falcon = hf.from_config({"model_type": "falcon", "alibi": True, "num_attention_heads": 3})
    assert falcon.rotations == {} and falcon.biases[""].heads == 3
    slopes = falcon.biases[""].bind({}).arrays["slopes"]
    assert [float(x) for x in slopes] == [0.0625, 0.00390625, 0.25]
    assert hf.from_config({"model_type": "falcon"}).biases == {}
    relative, rotary = (
        hf.from_config({"model_type": "wav2vec2-bert", "position_embeddings_type": kind})
        for kind in ("relative_key", "rotary")
    )
    assert relative.biases[""] == pe.ShawBias(heads=16, dim=64, left=64, right=8) and relative.rotations == {}
    assert rotary.biases == {} and rotary.rotation.dim == 64
    deberta = hf.from_config(
        {"model_type": "deberta-v2", "relative_attention": True, "position_buckets": 256, "pos_att_type": "p2c|c2p"}
    )
    assert deberta.biases["attention"] == pe.DeBERTaBias(heads=24, dim=64, max_distance=512, buckets=256)


def test_what_else_a_file_may_say():
    phi = hf.from_config({"model_type": "phi4_multimodal_audio", "bias_max_distance": 5, "bias_symmetric": True})
    assert phi.biases[""] == pe.ClippedBias(heads=16, left=4, right=4, symmetric=True)
    kinds = [{"type": "1d", "max_distance": 64}, {"type": "horizontal", "scaling_factor": 50}, {"type": "vertical"}]
    udop = hf.from_config({"model_type": "udop", "num_heads": 2, "relative_bias_args": kinds})
    assert [udop.biases[f"encoder.{name}"].max_distance for name in ("tokens", "horizontal", "vertical")] == [
        64,
        100,
        100,
    ]
    assert [udop.about[f"encoder.{name}"]["scale"] for name in ("tokens", "horizontal", "vertical")] == [1, 50, 100]
    longt5 = hf.from_config({"model_type": "longt5", "encoder_attention_type": "transient-global"})
    assert (
        longt5.biases["encoder.global"] == longt5.biases["encoder"] and longt5.about["encoder.global"]["blocks"] == 16
    )


def test_values_that_rotate():
    clvp, off = (hf.from_config({"model_type": "clvp_encoder", "use_rotary_embedding": on}) for on in (True, False))
    assert clvp.rotates_values and clvp.rotation.dim == 32
    assert off.rotations == {"": None} and not off.rotates_values
    roformer = hf.from_config({"model_type": "roformer", "rotary_value": True})
    assert roformer.rotates_values and hf.from_config(hf.to_config(roformer)) == roformer
    assert not hf.from_config({"model_type": "roformer"}).rotates_values


def test_a_convolution_is_no_scheme():
    wavlm = hf.from_config({"model_type": "wavlm", "num_conv_pos_embeddings": 64})
    bias = pe.T5Bias(heads=12, buckets=320, max_distance=800, bidirectional=True)
    assert wavlm.additive == {} and wavlm.biases == {"attention": pe.GatedBias(bias=bias, features=768)}
    settings = {"kernel": 64, "groups": 16, "stride": 1, "layers": 1, "normalize": False, "weight_norm": True}
    assert wavlm.about == {"frames": {"convolution": {"features": 768, **settings}}}


def test_towers():
    clip = hf.from_config({"model_type": "clip", "text_config": {"hidden_size": 8}})
    assert clip.towers["text_config"].additive == {"": pe.LearnedPositions(length=77, features=8)}
    vision = clip.towers["vision_config"]
    assert vision.additive[""] == pe.LearnedPositions(length=50, features=768)
    resize = {"method": "bicubic", "antialias": False, "align_corners": False}
    assert vision.about == {"": {"prefix": 1, "shape": (7, 7), "resize": resize}}
    assert hf.from_config({"model_type": "mamba"}) == hf.Positions(model_type="mamba")


@pytest.mark.parametrize(
    "config, wrong",
    [
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "mpt", "attn_config": {"alibi_bias_max": 16}}, "attn_config"),
        ({"model_type": "gpt2", "n_positions": 8, "max_position_embeddings": 9}, "n_positions"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 64}, "relative_attention_num_buckets == 32"),
        ({"model_type": "swin2sr", "use_absolute_embeddings": True}, "not use_absolute_embeddings"),
        ({"model_type": "gemma4_audio", "attention_context_right": 1}, "attention_context_right == 0"),
    ],
)
def test_upstream_bugs_are_followed_by_name_only(config, wrong):
    with pytest.raises(ValueError, match=wrong):
        hf.from_config(config)
    assert hf.from_config(config, follow_upstream_bugs=True).model_type == config["model_type"]


def test_expressions():
    names = {"a": 7, "b": [2, 3], "c": {"d": 4}, "e": None}
    assert expressions.evaluate("=a // 2 + b[1] ** 2 - c['d'] % 3", names) == 11
    assert expressions.evaluate("=(a if e else -a, not e, a == 7 and a != 7 or a > 6)[0]", names) == -7
    assert expressions.evaluate({"x": ["=prod(patches(a, b))", "word"]}, {"a": 8, "b": (2, 4)}) == {"x": (8, "word")}
    assert expressions.evaluate("=(get(c, 'd', 5), get(c, 'f', 5))", names) == (4, 5)
    assert expressions.names_in({"x": ["=prod(patches(a, b))", "word", 3]}) == {"a", "b"}
    with pytest.raises(ValueError, match="needs to be of names"):
        expressions.evaluate("=lambda: 3", {})


STRETCHED = {}  # one type for each way in which a table of patches is stretched
for name in sorted(TYPES - BROKEN):
    for place, about in hf.from_config({"model_type": name}).about.items():
        if "shape" in about and "resize" in about:
            STRETCHED.setdefault(json.dumps({**about, "shape": len(about["shape"])}, sort_keys=True), (name, place))


@pytest.mark.parametrize("name,place", STRETCHED.values(), ids=[name for name, _ in STRETCHED.values()])
def test_a_table_of_patches_as_it_is_and_stretched(name, place):
    about = {**hf.from_config({"model_type": name}).about[place], "shape": (4, 4)}
    front, behind = about.get("prefix", 0), about.get("behind", 0)
    table = jnp.arange(front + 16 + behind, dtype=jnp.float32)[:, None]
    own = hf.patch_table(table, (4, 4), about)
    assert sorted(own[:, 0].tolist()) == table[front * about.get("prefix_unused", False) :, 0].tolist()
    other = hf.patch_table(jnp.ones_like(table), (6, 2), about)
    assert other.shape == (len(own) - 4, 1)
    if "padding" not in about["resize"]:
        np.testing.assert_allclose(other, 1.0, rtol=1e-6)


def test_a_table_that_repeats_and_a_row_for_all():
    about = {"prefix": 0, "shape": (2, 3), "resize": {"method": "tile"}}
    repeated = hf.patch_table(jnp.arange(6.0)[:, None], (3, 4), about)
    assert repeated[:, 0].tolist() == [0, 1, 2, 0, 3, 4, 5, 3, 0, 1, 2, 0]
    about = {"prefix": 1, "shape": (1, 2), "prefix_added_to_all": True}
    assert hf.patch_table(jnp.array([[8.0], [1.0], [2.0]]), (1, 2), about)[:, 0].tolist() == [9.0, 10.0]
