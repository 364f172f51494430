"""Our schemes against the numbers of transformers' own modules: one test for each case in golden/cases.

Tolerances. transformers computes angles in float32. Its frequencies are often one ulp from the correctly rounded ones
(Phi's two, 2.4e-7 of the angle), and the rounded product adds another: cosines and sines differ by up to
`ANGLE * position * frequency`. From transformers' own stored frequencies ours are the same to the last operations,
which `FEW` covers. Arrays of float64 have neither error, and are held to 1e-6 at every position.
"""

import re

import content
import grids
import jax
import jax.numpy as jnp
import numpy as np
import rotary
from case import Case, Unsupported, check_close, check_equal
from rotary import ANGLE, FEW, call

import posembed_jax as pe

bucket = jax.jit(pe.T5Bias.bucket, static_argnums=0)


# Sinusoids

SINUSOIDS = {  # model -> settings
    "autoformer": dict(layout="sin_cos", denominator="half"),
    "marian": dict(layout="sin_cos", denominator="half"),
    "time_series_transformer": dict(layout="sin_cos", denominator="half"),
    "ctrl": dict(layout="sin_cos", denominator="half"),
    "distilbert": dict(layout="interleaved", denominator="half"),
    "fsmt": dict(layout="sin_cos", denominator="half_minus_1", odd="zero"),
    "m2m_100": dict(layout="sin_cos", denominator="half_minus_1", odd="zero"),
    "fun_asr_nano": dict(layout="sin_cos", denominator="half_minus_1"),
    "musicgen_melody": dict(layout="cos_sin", denominator="half_minus_1"),
    "pegasus_x": dict(layout="sin_cos", denominator="half_minus_1"),
    "qwen2_5_omni": dict(layout="sin_cos", denominator="half_minus_1"),
    "speecht5": dict(layout="interleaved", denominator="half"),
    "vibevoice": dict(layout="cos_sin", denominator="half"),
    "whisper": dict(layout="sin_cos", denominator="half_minus_1"),
}


IN_FLOAT64 = ("autoformer", "distilbert", "marian", "time_series_transformer")  # these make their tables in numpy
EXPONENTIAL = 1.2e-6  # relative error of the others' frequencies, which are float32 `exp(-log(base) i / n)`


def channel_frequencies(features, layout, denominator, odd="truncate"):
    """The frequency of each channel, float64 `[features]`."""
    half = features // 2 if odd == "zero" else (features + 1) // 2
    f = 10_000.0 ** (-np.arange(half) / (features / 2 if denominator == "half" else features // 2 - 1))
    return np.resize(np.repeat(f, 2) if layout == "interleaved" else np.tile(f, 2), features)


def check_sinusoid(case, positions, theirs, weights=1.0):
    positions, settings = np.asarray(positions), SINUSOIDS[case.model]
    angle = np.abs(positions[..., None]) * channel_frequencies(theirs.shape[-1], **settings)
    for phase in ("exact", "float32"):
        scheme = pe.Sinusoidal(features=theirs.shape[-1], phase=phase, fractional=True, **settings)
        wrong = (ANGLE if phase == "float32" else 0.0) if case.model in IN_FLOAT64 else EXPONENTIAL
        check_close(call(scheme.bind({}), positions) * weights, theirs, wrong * angle + FEW)


def check_table(case):
    """Autoformer, Marian, Time Series Transformer."""
    for _, (length, features), table in case.outputs(r"table_(\d+)x(\d+)"):
        check_sinusoid(case, pe.positions.arange(length), table)
        past = case[f"out.lookup_past3_{length}x{features}"]
        check_sinusoid(case, pe.positions.arange(len(past), 3), past)


def check_whole_table(case):
    """CTRL, DistilBERT, and the tables of MusicGen Melody, Qwen2.5-Omni and Whisper."""
    for _, _, table in case.outputs(r"t|s_\d+x\d+|table|out7"):
        check_sinusoid(case, pe.positions.arange(len(table)), table)
    if case.model == "musicgen_melody":
        for _, (past,), table in case.outputs(r"out_past(\d+)"):
            check_sinusoid(case, pe.positions.arange(len(table), past), table)


def check_padded_sinusoid(case):
    """M2M-100: positions start at padding_idx + 1, and the row of padding is zero."""
    for _, (features, padding), table in case.outputs(r"table_(\d+)_pad(\d+)"):
        real, rows = case["in.input_ids"] != padding, np.arange(len(table))
        check_sinusoid(case, rows, table, np.float32(rows != padding)[:, None])
        for name, past in (("out", 0), ("out_past4", 4)):
            theirs = case[f"out.{name}_{features}_pad{padding}"]
            check_sinusoid(case, past + padding_ids(real, padding), theirs, np.float32(real)[..., None])
        check_grown(case, features, padding)


def check_grown(case, features, padding):
    """Three tokens after 37, which is past the table: transformers makes it longer, we have none."""
    check_sinusoid(case, pe.positions.arange(3, 38 + padding)[None], case[f"out.grown_{features}_pad{padding}"])


def check_fsmt(case):
    """FSMT's class leaves its table random, which its model then fills: outputs inside the table are its rows.

    Past the end it makes a new one, of sinusoids; padding then stands at padding_idx + past, and is not zero.
    """
    for name, (features, padding), _ in case.outputs(r"table_(\d+)_pad(\d+)"):
        positions = padding_ids(case["in.input_ids"] != padding, padding)
        check_equal(learned(case, 0, name)(positions), case[f"out.out_{features}_pad{padding}"])
        check_sinusoid(case, positions + 4, case[f"out.out_past4_{features}_pad{padding}"])
        check_grown(case, features, padding)


def check_sinusoid_from_one(case):
    check_sinusoid(case, pe.positions.arange(len(case["out.out"]), 1), case["out.out"])


def check_sinusoid_with_past(case):
    for name, past in (("out.out", 0), ("out.out_past3", 3)):
        check_sinusoid(case, pe.positions.arange(case[name].shape[1], past)[None], case[name])


def check_timestep(case):
    """Diffusion times are positions: float32, and in Qwen2.5-Omni counted in thousandths."""
    times = case["in.t"] * np.float32(1000 if case.model == "qwen2_5_omni" else 1)
    check_sinusoid(case, times, case["out.out"])


def check_scaled_sinusoid(case):
    """SpeechT5 adds the table times a learned scalar."""
    check_sinusoid(case, pe.positions.arange(case["out.pe"].shape[1])[None], case["out.pe"])
    x, scheme = case["in.x"], pe.Sinusoidal(features=case["in.x"].shape[-1], **SINUSOIDS[case.model])
    ours = x + case["par.alpha"] * call(scheme.bind({}), pe.positions.arange(x.shape[1]))[None]
    check_close(ours, case["out.out"], EXPONENTIAL * x.shape[1] + FEW * np.max(np.abs(x)))


# Biases


def check_t5(case):
    if "par.gru_rel_pos_const" in case.arrays:
        return content.check_gated(case)
    config = case.config.get("text_config", case.config)
    table = case["par.relative_attention_bias"].T
    scheme = pe.T5Bias(
        heads=config["num_heads"],
        buckets=config["relative_attention_num_buckets"],
        max_distance=config["relative_attention_max_distance"],
        bidirectional=not config["is_decoder"],
    )
    for _, (first, last), theirs in case.outputs(r"bucket_(-\d+)\.\.(\d+)"):
        check_equal(bucket(scheme, jnp.arange(first, last + 1)), theirs[0])
    bias = scheme.bind({"table": jnp.asarray(table)})
    for _, (queries, keys, past), theirs in case.outputs(r"bias_q(\d+)_k(\d+)_past(\d+)"):
        check_equal(bias(pe.positions.arange(queries, past), pe.positions.arange(keys)), theirs[0])


def check_prophetnet_buckets(case):
    """Buckets of the two streams; the predicting stream sees each key also from the position before it."""
    scheme = pe.T5Bias(heads=1, buckets=32, max_distance=128, bidirectional=False)
    encoder = pe.T5Bias(heads=1, buckets=32, max_distance=128, bidirectional=True)
    at = case["in.position_ids"][0]
    check_equal(bucket(scheme, at[None, :] - at[:, None]), case["out.main"][0])
    streams = np.concatenate([at - 1, at])
    check_equal(bucket(scheme, streams[None, :] - at[:, None]), case["out.predict"][0])
    half = case["out.uni"].shape[1] // 2
    for settings, name in ((scheme, "out.uni"), (encoder, "out.bi")):
        check_equal(bucket(settings, jnp.arange(-half, half)), case[name][0])


def ulps(ours, theirs):
    return np.abs(np.float64(ours) - np.float64(theirs)) / np.spacing(np.abs(theirs))


def check_bloom(case):
    """`slope * key position` is our bias of a query at position 0. Padded keys stand at 0, as from_mask puts them.

    Bloom's slopes are float32 powers `x ** n` of a rounded x, which is wrong n times as much as x is: up to n / 2 ulp
    where x is not a power of two, and exact where it is.
    """
    for _, (heads,), theirs in case.outputs(r"slopes_h(\d+)"):
        slopes = pe.ALiBi(heads=heads).bind({}).arrays["slopes"]
        assert np.max(ulps(slopes, theirs)) <= (0 if heads <= 8 else heads // 2)
    keys = pe.positions.from_mask(case["in.attention_mask"] != 0)
    for _, (heads,), theirs in case.outputs(r"h(\d+)"):
        bias = pe.ALiBi(heads=heads, symmetric=False).bind({})(jnp.zeros(1, jnp.int32), keys)
        theirs = theirs.reshape(bias.shape)
        assert np.max(ulps(bias, theirs)) <= (0 if heads in (1, 2, 4, 8) else 1 + heads // 2)


def check_mpt(case):
    """The bias of the last query: MPT makes powers in float32, but of two, which are exact for these head counts."""
    for name, (heads, keys), theirs in case.outputs(r"h(\d+)_s(\d+)(?:_max\d+)?"):
        bias_max = float(name.partition("_max")[2] or 8)
        bias = pe.ALiBi(heads=heads, bias_max=bias_max).bind({})(
            pe.positions.arange(1, keys - 1), pe.positions.arange(keys)
        )
        assert np.max(ulps(bias, theirs)) <= 1, name


# Learned positions and position ids


def padding_ids(real, padding_idx):
    """Position ids of RoBERTa: padding at padding_idx, tokens from padding_idx + 1."""
    return np.asarray(pe.positions.from_mask(jnp.asarray(real), padding_position=-1)) + padding_idx + 1


def learned(case, index_offset, table="par.weight"):
    rows, features = case[table].shape
    scheme = pe.LearnedPositions(length=rows - index_offset, features=features, index_offset=index_offset)
    return scheme.bind({"table": jnp.asarray(case[table])})


def check_learned(case):
    """BART, BigBird-Pegasus, Blenderbot, PLBart, Whisper's decoder."""
    bound = learned(case, int(re.search(r"offset=(\d)|$", case.meta["note"])[1] or 0))
    check_equal(bound(case["in.position_ids"]), case["out.out_ids"].reshape(*case["in.position_ids"].shape, -1))
    length = case["out.out"].shape[-2]
    for _, (past,), theirs in [("", (0,), case["out.out"]), *case.outputs(r"out_past(\d+)")]:
        ours = bound(pe.positions.arange(length, past))
        check_equal(jnp.broadcast_to(ours, theirs.shape), theirs)


def check_opt(case):
    real = jnp.asarray(case["in.attention_mask"] != 0)
    bound, positions = learned(case, 2), pe.positions.from_mask(real, padding_position=-1)
    check_equal(bound(positions), case["out.out"])
    check_equal(bound(positions[:, 2:]), case["out.out_past2"])


def check_prophetnet_learned(case):
    offset = case.config["pad_token_id"] + 1
    positions = pe.positions.from_mask(jnp.asarray(case["in.attention_mask"] != 0), padding_position=-1)
    check_equal(positions + offset, case["out.position_ids"])
    check_equal(learned(case, offset)(positions), case["out.out"])


def check_bert(case):
    """BERT, ELECTRA, RoBERTa: token, token type and position rows, summed and normalised."""
    ids = case["in.input_ids"]
    if case.model == "roberta":
        padding = case.config["pad_token_id"]
        bound = learned(case, padding + 1, "par.position_embeddings.weight")
        positions = pe.positions.from_mask(jnp.asarray(ids != padding), padding_position=-1)
    else:
        bound = learned(case, 0, "par.position_embeddings.weight")
        positions = case.arrays.get("in.position_ids", np.arange(ids.shape[1])[None]).astype(np.int32)
    tokens = pe.embed(jnp.asarray(case["par.word_embeddings.weight"]), ids)
    types = pe.embed(jnp.asarray(case["par.token_type_embeddings.weight"]), np.zeros_like(ids))
    x = np.float64(tokens) + np.float64(types) + np.float64(bound(positions))
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + case.config["layer_norm_eps"])
    ours = x * case["par.LayerNorm.weight"] + case["par.LayerNorm.bias"]
    check_close(ours, case["out.out"], 4 * FEW)


def check_ids_of_generate(case):
    check_equal(pe.positions.from_mask(jnp.asarray(case["in.attention_mask"] != 0)), case["out.position_ids"])


def check_ids_of_padding(case):
    for _, (padding,), theirs in case.outputs(r"pad(\d+)"):
        real = case["in.input_ids"] != padding
        check_equal(padding_ids(real, padding), theirs)
        # Three tokens in a cache are three real tokens in front.
        longer = np.concatenate([np.ones_like(real[:, :3]), real], axis=1)
        check_equal(padding_ids(longer, padding)[:, 3:], case[f"out.pad{padding}_past3"])
        embeds = case[f"out.embeds_pad{padding}"]
        check_equal(pe.positions.arange(embeds.shape[1], padding + 1)[None], embeds)


FORMS = {  # an array that only this form of a rotary case has; the others have tables at given positions
    "in.aug_uniform_draws": grids.check_centers,
    "out.freqs_ci": grids.check_grid_from_one,
    "out.full_shape": grids.check_grid_from_one,
    "in.cos": rotary.check_given_tables,
    "out.table": rotary.check_joined_table,
    "out.cos_sin": rotary.check_hidden_states,
    "in.timestamps": grids.check_times,
    "in.keypoints": grids.check_keypoints,
}


def check_rotary(case):
    forms = [check for array, check in FORMS.items() if array in case.arrays]
    (forms or [rotary.check])[0](case)


OF_MECHANISM = {
    "attn_scale": rotary.check_scale,
    "config_load": check_rotary,
    "sweep_rope": check_rotary,
    "mrope_index": grids.check_index,
    "vision_grid": grids.check,
    "sin_1d": check_whole_table,
    "bias_t5": check_t5,
    "abs_learned": check_learned,
    "posid_generate": check_ids_of_generate,
    "posid_padding": check_ids_of_padding,
    "rel_shaw": content.check_shaw,
    "rel_xl": content.check_xl,
    "rel_deberta": content.check_deberta,
    "bias_decomposed": content.check_decomposed,
    "bias_learned_logits": content.check_learned_logits,
}
OF_MODEL = {
    ("sin_1d", "autoformer"): check_table,
    ("sin_1d", "marian"): check_table,
    ("sin_1d", "time_series_transformer"): check_table,
    ("sin_1d", "fsmt"): check_fsmt,
    ("sin_1d", "m2m_100"): check_padded_sinusoid,
    ("sin_1d", "fun_asr_nano"): check_sinusoid_from_one,
    ("sin_1d", "pegasus_x"): check_sinusoid_with_past,
    ("sin_1d", "speecht5"): check_scaled_sinusoid,
    ("sin_1d", "vibevoice"): check_timestep,
    ("bias_t5", "prophetnet"): check_prophetnet_buckets,
    ("bias_alibi", "bloom"): check_bloom,
    ("bias_alibi", "mpt"): check_mpt,
    ("abs_learned", "canine"): None,  # hashed characters
    ("bias_t5", "layoutlmv2"): None,  # two axes of boxes
    ("abs_learned", "opt"): check_opt,
    ("abs_learned", "prophetnet"): check_prophetnet_learned,
    ("abs_learned", "bert"): check_bert,
    ("abs_learned", "electra"): check_bert,
    ("abs_learned", "roberta"): check_bert,
}
OF_VARIANT = {("sin_1d", "qwen2_5_omni", "timestep"): check_timestep}


def check_of(name):
    """What checks a case; None where we have nothing for it."""
    mechanism, model, variant = name.split("__")
    if mechanism.startswith(("rope_", "mrope_")) and mechanism != "mrope_index":
        return check_rotary
    of_model = OF_MODEL.get((mechanism, model), OF_MECHANISM.get(mechanism))
    return OF_VARIANT.get((mechanism, model, variant), of_model)


def test_golden(case_name, cases):
    check = check_of(case_name)
    if check is None:
        raise Unsupported(f"{case_name.split('__')[0]} of {case_name.split('__')[1]}: we have no scheme for it yet")
    check(Case(cases, case_name))
