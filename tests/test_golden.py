"""Our schemes against the numbers of transformers' own modules: one test for each case in golden/cases.

Tolerances. transformers computes angles in float32. Its frequencies are often one ulp from the correctly rounded ones
(Phi's two, 2.4e-7 of the angle), and the rounded product adds another: cosines and sines differ by up to
`ANGLE * position * frequency`. From transformers' own stored frequencies ours are the same to the last operations,
which `FEW` covers. Arrays of float64 have neither error, and are held to 1e-6 at every position.
"""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax import hf

CASES = pathlib.Path(__file__).parent / "golden" / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.npz"))

ANGLE = 3.6e-7  # relative difference of two float32 angles
FEW = 3e-7  # absolute, of values near 1


# One compilation for each shape, not one for each operation.
call = jax.jit(lambda bound, *args: bound(*args))
cos_sin = jax.jit(pe.RoPE.cos_sin, static_argnums=0)
bucket = jax.jit(pe.T5Bias.bucket, static_argnums=0)
rotate = jax.jit(pe.rotate, static_argnames="layout")


class Case:
    def __init__(self, name):
        self.mechanism, self.model, self.variant = name.split("__")
        self.meta = json.loads((CASES / f"{name}.json").read_text())
        self.config = self.meta["config_saved"] or {}
        self.arrays = dict(np.load(CASES / f"{name}.npz"))

    def __getitem__(self, key):
        x = self.arrays[key]
        return x.astype(np.int32) if x.dtype == np.int64 else x

    def outputs(self, pattern):
        """(name, groups of the pattern as ints, array) of every output that matches, of which there must be one."""
        found = [(k, re.fullmatch(f"out.(?:{pattern})", k)) for k in self.arrays]
        found = [(k, [int(g) for g in m.groups()], self[k]) for k, m in found if m]
        assert found, (pattern, list(self.arrays))
        return found


def check_close(ours, theirs, tolerance):
    """|ours - theirs| <= tolerance, in float64: a number, or an array."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    excess = np.abs(np.float64(ours) - np.float64(theirs)) - tolerance
    assert np.all(excess <= 0), f"{np.max(excess)} over the tolerance"


def check_equal(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours), theirs)


# RoPE

INTERLEAVED_PAIRS = ("cohere", "glm", "helium", "gptj", "pe_audio_encoder", "deepseek_v3")
INTERLEAVED_TABLES = ("cohere",)  # the others keep theirs as cos | cos


def rope_of(case, **settings):
    """The settings that the configuration says, with its scaling."""
    config, parameters = case.config, dict(case.config["rope_parameters"])
    kind, original = parameters["rope_type"], config.get("original_max_position_embeddings")
    if original and kind in ("yarn", "longrope", "llama3"):
        parameters["original_max_position_embeddings"] = original
    scaling = hf.scaling(parameters, max_position_embeddings=config.get("max_position_embeddings"))
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if kind != "proportional" and (case.model, kind) != ("llama", "default"):  # these turn the whole head
        dim = int(dim * parameters.get("partial_rotary_factor", 1.0))
    layout = "interleaved" if case.model in INTERLEAVED_PAIRS else "half"
    return pe.RoPE(dim=dim, base=parameters["rope_theta"], layout=layout, scaling=scaling, **settings)


def once(case, table):
    """transformers' table `[..., dim]`, in which every value stands twice -> `[..., dim / 2]`."""
    half = table.shape[-1] // 2
    return table[..., ::2] if case.model in INTERLEAVED_TABLES else table[..., :half]


def heads_second(x):
    """`[B, N, T, D]`, as transformers has it -> `[B, T, N, D]`."""
    return jnp.swapaxes(jnp.asarray(x), 1, 2)


def angles(positions, rope):
    return np.abs(positions[..., None] * np.array(rope.frequencies(), np.float64))


def as_stored(case, x, rope):
    """DeepSeek's rotation sorts the even channels before the odd and rotates halves: our result, channels permuted."""
    if case.model != "deepseek_v3":
        return x
    return pe.permute_layout(x, source="interleaved", target="half", dim=rope.dim)


def check_tables(case, ours, tolerance, suffix=""):
    for name, table in zip(("cos", "sin"), ours, strict=True):
        check_close(table, once(case, case[f"out.{name}{suffix}"]), tolerance)


def check_rope(case):
    exact, usual = rope_of(case), rope_of(case, phase="float32")
    positions, frequencies = case["in.position_ids"], case["out.buf_init.inv_freq"]
    assert case["out.cos"].shape[-1] == exact.dim
    check_tables(case, cos_sin(exact, positions), 1e-6, "_f64")

    tolerance = ANGLE * angles(positions, usual) + FEW
    check_tables(case, cos_sin(usual, positions), tolerance)
    np.testing.assert_allclose(np.array(usual.frequencies(), np.float32), frequencies, rtol=2.4e-7)
    stored = rope_of(case, phase="float32", learned=True)
    check_tables(case, cos_sin(stored, positions, {"frequencies": jnp.asarray(frequencies)}), FEW)

    cos, sin = (jnp.asarray(once(case, case[name])) for name in ("out.cos", "out.sin"))
    for name in "qk":
        x, theirs = heads_second(case[f"in.{name}"]), heads_second(case[f"out.{name}_rot"])
        width = theirs.shape[-1]  # Phi's function is given, and returns, the channels that turn alone
        rotated = as_stored(case, rotate(x, cos, sin, layout=exact.layout), exact)
        check_close(rotated[..., :width], theirs, FEW * np.max(np.abs(x)))
        check_equal(rotated[..., exact.dim :], x[..., exact.dim :])
        # A pair of length r turned by an angle that is off by e is off by r e.
        whole = as_stored(case, call(usual.bind({}), x, positions), exact)
        check_close(whole[..., :width], theirs, np.max(tolerance, axis=-1)[..., None, None] * 1.5 * np.max(np.abs(x)))


def length_in_use(scaling, positions, before):
    """transformers' length grows with the largest position of a batch; dynamic NTK's only goes back to its start."""
    length = int(np.max(positions)) + 1
    if isinstance(scaling, pe.LongRoPE):
        return length
    return length if length < scaling.original_length else max(length, before, scaling.original_length)


def check_scaled(case):
    exact, usual = rope_of(case), rope_of(case, phase="float32")
    repeated, used = 1 if case.model == "gpt_oss" else 2, 0  # how often a frequency stands in a table
    for name, _, theirs in case.outputs(r"cos(?:\.\d+)?_f64"):
        call_number = name.removeprefix("out.cos").removesuffix("_f64")
        positions = case[f"in.position_ids{call_number}"]
        length = {}
        if isinstance(exact.scaling, pe.DynamicNTK | pe.LongRoPE):
            used = length_in_use(exact.scaling, positions, used)
            length = {"length": used}
        assert theirs.shape[-1] == repeated * exact.dim // 2
        for rope, suffix in ((exact, "_f64"), (usual, "")):
            bound_frequencies = dataclasses.replace(rope, **length).frequencies()
            angle = np.abs(positions[..., None] * np.array(bound_frequencies, np.float64))
            # transformers' own base of dynamic NTK is rounded to float32 as well
            tolerance = 1e-6 if suffix else (3 * ANGLE if length else ANGLE) * angle + 2 * FEW
            for kind, table in zip(("cos", "sin"), rope.cos_sin(positions, **length), strict=True):
                there = case[f"out.{kind}{call_number}{suffix}"]
                check_close(table, there[..., : rope.dim // 2], tolerance)
        bound = exact.bind({}, **length)
        for x in "qk":
            given, turned = case[f"in.{x}{call_number}"], case[f"out.{x}_rot{call_number}"]
            ours = as_stored(case, call(bound, heads_second(given), positions), exact)
            angles = np.max(np.abs(positions))
            check_close(ours, heads_second(turned), (3 * ANGLE * angles + 2 * FEW) * 3 * np.max(np.abs(given)))


def check_mrope(case):
    sizes = tuple(case.config["rope_parameters"].get("mrope_section", (24, 20, 20)))  # Qwen3-VL's default
    axes = {"mrope_sections": pe.Axes.sections, "mrope_interleaved": pe.Axes.interleaved}[case.mechanism](sizes)
    rope, positions = rope_of(case, axes=axes), jnp.moveaxis(case["in.position_ids"], 0, -1)
    check_axes(case, rope, positions)
    for x in "qk":
        turned = call(rope.bind({}), heads_second(case[f"in.{x}"]), positions)
        check_close(turned, heads_second(case[f"out.{x}_rot"]), 1e-4)


FRAMES_ALONE = ("qwen3_vl", "glm4v")
ONES_FOR_PADDING = ("qwen2_5_omni",)


def check_mrope_index(case):
    """In the flat list of the whole batch, which is transformers' form; every number is the same."""
    vision, real = case.config["vision_config"], case["in.attention_mask"]
    settings = {"split_frames": case.model in FRAMES_ALONE, "time_merge": vision.get("temporal_merge_size", 1)}
    if case.model == "qwen2_5_omni":
        settings |= {"tokens_per_second": case.config["position_id_per_seconds"], "after": "largest"}
    elif case.model == "qwen2_5_vl":
        settings |= {"tokens_per_second": vision["tokens_per_second"]}
    ours, following = pe.mrope.positions(
        case["in.mm_token_type_ids"],
        image_grids=case["in.image_grid_thw"] if "in.image_grid_thw" in case.arrays else None,
        video_grids=case["in.video_grid_thw"],
        seconds_per_grid=case.arrays.get("in.second_per_grid_ts"),
        segment_ids=real,
        merge=vision["spatial_merge_size"],
        **settings,
    )
    padding = int(case.model in ONES_FOR_PADDING)
    check_equal(jnp.where(real[..., None] > 0, ours, padding), np.moveaxis(case["out.position_ids"], 0, -1))
    check_equal(following - real.sum(axis=-1), case["out.rope_deltas"][:, 0])


def check_axes(case, rope, positions):
    for kind, table in zip(("cos", "sin"), rope.cos_sin(positions), strict=True):
        wide = f"out.{kind}_f64" in case.arrays
        check_close(table, case[f"out.{kind}_f64" if wide else f"out.{kind}"][..., : rope.dim // 2], 1e-6)


def check_vision(case):
    """Height and width: blocks of the same frequencies, or, in Pixtral, the even ones and the odd ones."""
    dim, base = case["out.cos"].shape[-1], float(case.config["rope_parameters"]["rope_theta"])
    axes = pe.Axes.blocks(axes=2, count=dim // 4)
    if case.model == "pixtral":
        index = (*range(0, dim // 2, 2), *range(1, dim // 2, 2))
        axes = pe.Axes(axis=axes.axis, index=index, count=dim // 2)
    rope = pe.RoPE(dim=dim, layout="half", base=base, axes=axes)
    check_axes(case, rope, case["in.position_ids"])


def check_rope_of_given_frequencies(case):
    """Mistral Large 4 multiplies its frequencies by exp of a stored array: frequencies that are parameters."""
    frequencies = case["out.buf_init.inv_freq"] * np.exp(case["out.buf_init.alpha"])
    rope = pe.RoPE(dim=2 * len(frequencies), layout="half", learned=True)
    positions = case["in.position_ids"]
    tolerance = ANGLE * np.abs(positions[..., None] * np.float64(frequencies)) + FEW
    params = {"frequencies": jnp.asarray(frequencies)}
    check_tables(case, cos_sin(rope, positions, params), tolerance)


def check_rope_suffix(case):
    """The queries are the last of the keys: their positions are too."""
    queries, half = case["in.q"].shape[2], case["in.cos"].shape[-1] // 2
    cos, sin = case["in.cos"][..., :half], case["in.sin"][..., :half]
    q = rotate(heads_second(case["in.q"]), cos[:, -queries:], sin[:, -queries:], layout="half")
    check_close(q, heads_second(case["out.q_rot"]), FEW * 4)
    k = rotate(heads_second(case["in.k"]), cos, sin, layout="half")
    check_close(k, heads_second(case["out.k_rot"]), FEW * 4)


def check_rope_of_hidden_states(case):
    heads, base = case.config["num_attention_heads"], case.config["rotary_embedding_base"]
    x = case["in.x"].reshape(*case["in.x"].shape[:2], heads, -1)
    rope = pe.RoPE(dim=x.shape[-1], base=float(base), layout="half", phase="float32")
    positions = pe.positions.arange(x.shape[1])
    tables = case["out.cos_sin"][:, :, 0, 0, : rope.dim // 2]
    check_close(np.stack(cos_sin(rope, positions)), tables, ANGLE * x.shape[1] + FEW)
    check_close(call(rope.bind({}), jnp.asarray(x), positions), case["out.h_rot"].reshape(x.shape), 4 * FEW)


def check_rope_gptj(case):
    table, q = case["out.table"], jnp.asarray(case["in.q"])
    rope = pe.RoPE(dim=table.shape[1], layout="interleaved", phase="float32")
    cos, sin = cos_sin(rope, pe.positions.arange(len(table)))
    check_close(np.concatenate([sin, cos], -1), table, ANGLE * len(table) + FEW)
    check_close(call(rope.bind({}), q, case["in.position_ids"]), case["out.q_rot"], 4 * (ANGLE * len(table) + FEW))


def check_rope_pe_audio(case):
    rope, positions = rope_of(case, phase="float32"), case["in.position_ids"]
    tolerance = ANGLE * angles(positions, rope) + FEW
    check_tables(case, cos_sin(rope, positions), tolerance)
    for name in "qk":
        ours = call(rope.bind({}), jnp.asarray(case[f"in.{name}"]), positions)
        check_close(ours, case[f"out.{name}_rot"], 4 * np.max(tolerance))


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


OF_MECHANISM = {
    "rope_default": check_rope,
    "rope_interleaved": check_rope,
    "rope_partial": check_rope,
    **dict.fromkeys(["rope_linear", "rope_dynamic", "rope_yarn", "rope_longrope", "rope_llama3"], check_scaled),
    "rope_proportional": check_scaled,
    "mrope_sections": check_mrope,
    "mrope_interleaved": check_mrope,
    "mrope_index": check_mrope_index,
    "rope_vision": check_vision,
    "sin_1d": check_whole_table,
    "bias_t5": check_t5,
    "abs_learned": check_learned,
    "posid_generate": check_ids_of_generate,
    "posid_padding": check_ids_of_padding,
}
OF_MODEL = {
    ("rope_default", "mistral_large4_text"): check_rope_of_given_frequencies,
    ("rope_default", "muse_glimmer_assistant"): check_rope_suffix,
    ("rope_default", "wav2vec2-conformer"): check_rope_of_hidden_states,
    ("rope_interleaved", "gptj"): check_rope_gptj,
    ("rope_interleaved", "pe_audio_encoder"): check_rope_pe_audio,
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
    ("abs_learned", "opt"): check_opt,
    ("abs_learned", "prophetnet"): check_prophetnet_learned,
    ("abs_learned", "bert"): check_bert,
    ("abs_learned", "electra"): check_bert,
    ("abs_learned", "roberta"): check_bert,
}
OF_VARIANT = {("sin_1d", "qwen2_5_omni", "timestep"): check_timestep}


@pytest.mark.parametrize("name", NAMES)
def test_golden(name):
    case = Case(name)
    of_model = OF_MODEL.get((case.mechanism, case.model), OF_MECHANISM.get(case.mechanism))
    OF_VARIANT.get((case.mechanism, case.model, case.variant), of_model)(case)
