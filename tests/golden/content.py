"""Biases that are functions of content: their golden cases.

Tolerances. transformers sums the same products in another order. A sum of n terms of at most x is wrong by at most
`n ROUNDING n x`, which `rounding` gives; layers are chains of such sums, of values near 1 behind their softmax.
"""

import dataclasses
import re

import facts
import jax
import jax.numpy as jnp
import numpy as np
from case import check_close, check_equal
from rotary import ANGLE, FEW, call

import posembed_jax as pe
from posembed_jax.schemes import relative_scores

ROUNDING = 2.0**-24
EXPONENTIAL = 1.2e-6  # relative error of frequencies that are float32 powers


def rounding(terms, *factors):
    """Of sums of `terms` products of these arrays, each of which may be sums of as many."""
    return (terms + len(factors)) * ROUNDING * terms * np.prod([np.max(np.abs(x)) for x in factors])


def ranges(queries, keys, past=0):
    return pe.positions.arange(queries, past), pe.positions.arange(keys)


# Layers


def part(case, *names):
    """The first parameter that there is."""
    found = [f"par.{name}" for name in names if f"par.{name}" in case.arrays]
    assert found, (names, list(case.arrays))
    return case[found[0]]


def projected(case, x, heads, *names):
    """x through one of the layers of these names, `[..., T, F]` -> `[..., T, N, D]`."""
    out = x @ part(case, *(f"{name}.weight" for name in names)).T
    bias = [f"par.{name}.bias" for name in names if f"par.{name}.bias" in case.arrays]
    out = out + case[bias[0]] if bias else out
    return out.reshape(*x.shape[:-1], heads, -1)


PROJECTIONS = ("{1}_proj", "linear_{1}", "to_{1}", "{0}", "{1}_proj.linear")
OUTPUTS = ("out_proj", "linear_out", "o_proj", "to_out", "post.linear")


def attended(case, x, heads, **settings):
    """What a layer of attention makes of x `[B, T, F]`."""
    query, key, value = (
        projected(case, x, heads, *(form.format(name, name[0]) for form in PROJECTIONS))
        for name in ("query", "key", "value")
    )
    if "par.per_dim_scale" in case.arrays:  # Gemma's audio encoders: 1 for each channel where the parameters are 0
        query = query * np.log1p(np.exp(case["par.per_dim_scale"])) / np.float32(np.log(2))
        key = key * case.arrays.get("in.key_scale", np.float32(1))
    out = jax.jit(lambda *qkv: pe.attend(*qkv, **settings))(query, key, value)
    out = np.asarray(out).reshape(*x.shape[:2], -1)
    if not any(f"par.{name}.weight" in case.arrays for name in OUTPUTS):
        return out
    return projected(case, out, 1, *OUTPUTS)[:, :, 0]


def check_layer(case, heads, **settings):
    """Four products, of which the softmax multiplies the error of the first two."""
    x = case["in.x"]
    ours = attended(case, x, heads, **settings)
    weights = [case[name] for name in case.arrays if name.endswith("weight") and case[name].ndim == 2]
    error = rounding(x.shape[-1], x, max(weights, key=lambda w: np.max(np.abs(w))))
    check_close(ours, case["out.attn_out"], 4 * error * max(1.0, np.max(np.abs(case["out.attn_out"]))))


# Shaw


def check_shaw(case):
    for array, check in SHAW.items():
        if f"par.{array}" in case.arrays:
            return check(case)
    raise AssertionError(list(case.arrays))


def check_vectors(case):
    """SpeechT5's vectors of `query position - key position`: ours are theirs, read by queries of one channel each."""
    place = facts.only(facts.places(case, pe.ShawBias))
    table = case["par.pe_k"]
    rows, dim = table.shape
    right = (rows - 1 + place.scheme.right - place.scheme.left) // 2
    assert place.about["zero_at"] == place.scheme.right  # the last rows are of keys before the query
    scheme = dataclasses.replace(place.scheme, heads=dim, dim=dim, left=rows - 1 - right, right=right, scale=1.0)
    table = table[::-1]
    queries, keys, _ = case["out.out"].shape
    channels = np.tile(np.eye(dim, dtype=np.float32), (1, queries, 1, 1))
    bias = scheme.bind({"table": table[None]})(
        channels, np.zeros((1, keys, 1, dim), np.float32), *ranges(queries, keys)
    )
    check_equal(np.moveaxis(np.asarray(bias[0]), 0, -1), case["out.out"])


def check_shaw_layer(case):
    """Wav2Vec2-BERT and SeamlessM4T v2: distances of the key from the query."""
    place = facts.only(facts.places(case, pe.ShawBias))
    bias = place.scheme.bind({"table": case["par.distance_embedding.weight"][None]})
    check_layer(case, place.scheme.heads, bias=bias)


def check_vits(case):
    """Vectors of keys and values within a window."""
    schemes = {place.name: place.scheme for place in facts.places(case, (pe.ShawBias, pe.ShawValues))}
    keys, values = (schemes[name].bind({"table": case[f"par.emb_rel_{name[0]}"]}) for name in ("keys", "values"))
    check_layer(case, keys.scheme.heads, bias=keys, value_bias=values)


def check_granite(case):
    """Blocks of `context_size` are rows of the batch; the table has more rows than they use."""
    place = facts.only(facts.places(case, pe.ShawBias))
    table, x, scheme, heads = case["par.rel_pos_emb.weight"], case["in.x"], place.scheme, place.scheme.heads
    zero, size = place.about["zero_at"], place.about["within"]
    own = table[zero - scheme.right : zero + scheme.left + 1][::-1]
    if "par.pre_norm.weight" in case.arrays:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * case["par.pre_norm.weight"] + case["par.pre_norm.bias"]
    query = projected(case, x, heads, "to_q", "q_proj")
    if "par.to_kv.weight" in case.arrays:
        both = projected(case, x, 1, "to_kv").reshape(*x.shape[:2], 2, heads, -1)
        key, value = both[:, :, 0], both[:, :, 1]
    else:
        key, value = (projected(case, x, heads, name) for name in ("k_proj", "v_proj"))
    at = pe.positions.arange(x.shape[1])
    segments = jnp.broadcast_to(at // size + 1, x.shape[:2])
    out = pe.attend(query, key, value, bias=scheme.bind({"table": own[None]}), query_segment_ids=segments)
    ours = projected(case, np.asarray(out).reshape(*x.shape[:2], -1), 1, "to_out", "o_proj")[:, :, 0]
    check_close(ours, case["out.attn_out"], 8 * rounding(x.shape[-1], x, part(case, "to_q.weight", "q_proj.weight")))


SHAW = {  # a parameter -> what checks its cases
    "pe_k": check_vectors,
    "distance_embedding.weight": check_shaw_layer,
    "emb_rel_k": check_vits,
    "rel_pos_emb.weight": check_granite,
}


# Transformer-XL


def xl_place(case):
    return facts.only(facts.places(case, pe.TransformerXLBias), "sinusoid", "biases")


def sinusoid(case, features):
    return dataclasses.replace(xl_place(case).scheme.sinusoid, features=features)


def check_xl(case):
    forms = {
        "out.bi": check_xlnet_tables,
        "par.r": check_xlnet,
        "out.attn_out": check_conformer_layer,
        "out.bias": check_conformer,
        "par.r_kernel": check_funnel,
    }
    form = next((check for array, check in forms.items() if array in case.arrays), check_sinusoids)
    form(case)


def check_table(case, positions, theirs):
    """Frequencies `exp(-log(base) i / n)` in float32 are wrong by up to 1.2e-6."""
    ours = sinusoid(case, theirs.shape[-1]).bind({})(positions)
    check_close(ours, theirs, (1.2e-6 + ANGLE) * np.abs(np.asarray(positions))[:, None] + FEW)


def check_sinusoids(case):
    """From the distance of the first key to the last query, down."""
    length = case["out.pos_emb"].shape[1] // 2 + 1
    check_table(case, jnp.arange(length - 1, -length, -1), case["out.pos_emb"][0])
    if "out.scaled" in case.arrays:
        x = case["in.x"]
        check_close(x * np.sqrt(np.float32(x.shape[-1])), case["out.scaled"], 2 * ROUNDING * np.abs(case["out.scaled"]))


def conformer(case, heads):
    kernel = part(case, "linear_pos.weight", "relative_k_proj.weight", "relative_position_embedding.pos_proj.weight")
    dim, features = kernel.shape[0] // heads, kernel.shape[1]
    scheme = dataclasses.replace(xl_place(case).scheme, heads=heads, dim=dim, sinusoid=sinusoid(case, features))
    own = {name: part(case, f"pos_bias_{name}", f"bias_{name}") for name in "uv" if scheme.biases}
    return scheme, {"kernel": kernel.reshape(heads, dim, features).swapaxes(1, 2), **own}


def check_conformer(case):
    """Their bias has no part of u, which is in their query."""
    check_sinusoids(case)
    query, key = (np.swapaxes(case[name], 1, 2) for name in ("in.q", "in.k"))
    scheme, params = conformer(case, query.shape[2])
    at = ranges(query.shape[1], key.shape[1])
    ours = scheme.bind(params | {"u": np.zeros_like(params["u"])})(query, key, *at)
    features = params["kernel"].shape[1]
    error = rounding(features, params["kernel"], query) * scheme.dim + 2e-6 * len(at[1]) * np.max(np.abs(ours))
    check_close(ours, case["out.bias"], error)
    whole = scheme.bind(params)(query, key, *at)
    more = np.einsum("bntd,bsnd->bnts", case["out.q_u"] - case["in.q"], key) * scheme.dim**-0.5
    check_close(whole - ours, more, error)


def check_conformer_layer(case):
    """Parakeet's family says how many heads; elsewhere they are those of the biases."""
    place = xl_place(case)
    heads = part(case, "pos_bias_u", "bias_u").shape[0] if place.scheme.biases else place.scheme.heads
    scheme, params = conformer(case, heads)
    seen = {"mask": case["in.mask"]} if "in.mask" in case.arrays else {}
    cap = {"logits_soft_cap": float(case["in.soft_cap"])} if "in.soft_cap" in case.arrays else {}
    check_layer(case, heads, bias=scheme.bind(params), **seen, **cap)


def check_xlnet(case):
    """`[T, B, N, D]`; distances from the number of keys to minus that of queries."""
    query, key, value = (np.swapaxes(case[f"in.{name}"], 0, 1) for name in "qkv")
    kernel, queries, keys = case["par.r"], query.shape[1], key.shape[1]
    scheme = dataclasses.replace(
        xl_place(case).scheme, heads=kernel.shape[1], dim=kernel.shape[2], sinusoid=sinusoid(case, kernel.shape[0])
    )
    clamp = scheme.max_distance
    distances = np.arange(keys, -queries, -1)
    distances = distances if clamp is None else np.clip(distances, -clamp, clamp)
    check_table(case, distances.astype(np.int32), case["in.pos_emb"][:, 0])
    names = {"u": "r_w_bias", "v": "r_r_bias"}
    params = {"kernel": kernel.swapaxes(0, 1), **{ours: case[f"par.{theirs}"] for ours, theirs in names.items()}}
    at = ranges(queries, keys, keys - queries)
    ours = pe.attend(query, key, value, bias=scheme.bind(params), query_positions=at[0], key_positions=at[1])
    check_close(np.swapaxes(ours, 0, 1), case["out.out"], 4 * rounding(kernel.shape[0], kernel, query))


def check_funnel(case):
    """Weights of layers whose queries, or also keys, are pooled; the first token may be without a part of positions."""
    blocks = {place.name: place for place in facts.places(case, pe.TransformerXLBias)}
    for _, numbers, theirs in case.outputs(r"weights_q(\d+)_k(\d+)"):
        sides = [(blocks[f"encoder.{i}"], case[f"in.x{i}"]) for i in numbers]
        at = [place.about["first"] + place.about["stride"] * pe.positions.arange(x.shape[1]) for place, x in sides]
        scheme, front = sides[0][0].scheme, sides[0][0].about["without_positions"]
        query, key = (
            projected(case, x, scheme.heads, f"{name}_head") for name, (_, x) in zip("qk", sides, strict=True)
        )
        params = {"kernel": case["par.r_kernel"].swapaxes(0, 1), "u": case["par.r_w_bias"], "v": case["par.r_r_bias"]}
        bias = scheme.bind(params)
        if front:
            bias = np.array(scheme.bind(params | {"u": np.zeros_like(params["u"])})(query, key, *at))
            bias[..., :front, :] = bias[..., :front] = 0
            query = query + params["u"]
        identity = np.broadcast_to(np.eye(key.shape[1], dtype=np.float32)[:, None], (*key.shape[:3], key.shape[1]))
        ours = pe.attend(query, key, identity, bias=bias, query_positions=at[0], key_positions=at[1])
        check_close(np.moveaxis(np.asarray(ours), 2, 1), theirs, 8 * rounding(scheme.sinusoid.features, query, key))


def check_xlnet_tables(case):
    """One way, clamped, and backwards; and what the shift picks, which is the row of the distance."""
    queries, keys = case["out.rel_shift"].shape[:2]
    distances = np.arange(keys, -queries, -1)
    check_table(case, distances.astype(np.int32), case["out.bi"][:, 0])
    half = case["out.bi_data"].shape[1] // 2
    for sign, row in ((1, 0), (-1, half)):
        check_table(case, sign * distances.astype(np.int32), case["out.bi_data"][:, row])
    for name, (clamp,), theirs in case.outputs(r"uni_clamp(\d+)"):
        assert len(theirs) == keys + 1, name
        check_table(case, np.clip(np.arange(keys, -1, -1), -clamp, clamp).astype(np.int32), theirs[:, 0])
    at = ranges(queries, keys, keys - queries)
    rows = keys + relative_scores.distances(*at)
    check_equal(relative_scores.pick(jnp.asarray(case["in.y"]), rows), case["out.rel_shift_bnij"])
    scores = jnp.asarray(np.moveaxis(case["in.x"], (0, 1), (2, 3)))
    check_equal(np.moveaxis(relative_scores.pick(scores, rows), (2, 3), (0, 1)), case["out.rel_shift"])


def check_box_differences(case):
    """BROS: a projected sinusoid of the difference of two boxes is a part of the key."""
    place = facts.only(facts.places(case, pe.Sinusoidal))
    assert place.about == {"of": "differences of boxes", "added_to": "keys"}
    x, boxes, kernel = case["in.x"], case["in.bbox"], case["par.bbox_projection.weight"]
    pairs = (boxes[:, None] - boxes[:, :, None]).reshape(len(boxes), -1, boxes.shape[-1])
    vectors = np.float64(call(place.scheme.bind({}), pairs)) @ kernel.T
    vectors = np.float32(vectors).reshape(*boxes.shape[:2], boxes.shape[1], -1)
    angle = place.scheme.scale * np.abs(pairs).max()
    error = (EXPONENTIAL + ANGLE) * angle * kernel.shape[1] * np.abs(kernel).max()
    check_close(np.moveaxis(vectors, 0, 2), case["out.vectors"], error)
    query = projected(case, x, x.shape[-1] // kernel.shape[0], "query")
    bias = np.einsum("btnd,btsd->bnts", query, vectors) * kernel.shape[0] ** -0.5
    check_layer(case, query.shape[2], bias=bias)


# DeBERTa


def check_deberta(case):
    (check_deberta_bias if "out.bias" in case.arrays else check_deberta_buckets)(case)


def check_deberta_bias(case):
    """Tables are projected by layers of their own, or by those of the keys and queries where these are shared."""
    query, key = (np.swapaxes(case[name], 0, 1)[None] for name in ("in.q", "in.k"))
    heads, dim, rows = case["in.q"].shape[0], query.shape[-1], case["in.rel_embeddings"]
    place = facts.only(facts.places(case, pe.DeBERTaBias))
    scheme = dataclasses.replace(place.scheme, heads=heads, dim=dim)
    first = rows.shape[0] // 2 - scheme.span
    rows = rows[first : first + 2 * scheme.span]
    layers = {
        "pos_key": ("pos_key_proj", "pos_proj", "key_proj"),
        "pos_query": ("pos_query_proj", "pos_q_proj", "query_proj"),
    }
    params = {name: np.swapaxes(projected(case, rows, heads, *layers[name]), 0, 1) for name in scheme.inits()}
    bias = scheme.bind(params)(query, key, *ranges(query.shape[1], key.shape[1]))
    check_close(bias, case["out.bias"].reshape(bias.shape), 4 * rounding(dim, query, *params.values()))


def check_deberta_buckets(case):
    """Rows of our table are theirs, which are clipped to it. Small cases do not say what they ran with: a pair of

    powers of two, as in all the models, must give all of them.
    """
    for _, (length,), theirs in case.outputs(r"plain_(\d+)"):
        check_equal(pe.positions.arange(length)[:, None] - pe.positions.arange(length)[None], theirs[0])
    for name, (length, buckets, furthest), theirs in case.outputs(r"log_row0_(\d+)_b(\d+)_m(\d+)"):
        assert same_buckets(buckets, furthest, -np.arange(length), theirs), name
        assert same_buckets(buckets, furthest, length - 1 - np.arange(length), case[f"out.log_row{length - 1}"])
        for _, (first, last), other in case.outputs(r"bucket_(-\d+)\.\.(\d+)"):
            assert same_buckets(buckets, furthest, np.arange(first, last + 1), other)
    small = [(q[0], q[0], theirs) for _, q, theirs in case.outputs(r"log_(\d+)")]
    small += [(q, k, theirs) for _, (q, k), theirs in case.outputs(r"log_q(\d+)k(\d+)")]
    powers = [2**n for n in range(2, 11)]
    assert any(
        all(same_buckets(b, m, np.arange(q)[:, None] - np.arange(k), theirs[0]) for q, k, theirs in small)
        for b in powers
        for m in powers
        if m > b // 2 + 1
    )


def same_buckets(buckets, furthest, distances, theirs):
    scheme = pe.DeBERTaBias(heads=1, dim=1, max_distance=furthest, buckets=buckets, kinds=("c2p",))
    constants = {name: jnp.asarray(x) for name, x in scheme.constants().items()}
    ours = scheme.rows(constants, jnp.asarray(distances, jnp.int32)) - scheme.span
    return np.array_equal(ours, np.clip(theirs, -scheme.span, scheme.span - 1))


# The others


def found(case, pattern):
    """As `case.outputs`, where there may be none."""
    return case.outputs(pattern) if any(re.fullmatch(f"out.{pattern}", name) for name in case.arrays) else []


def resized(table, size):
    return pe.resize_table(table, (len(table),), (2 * size - 1,), method="bilinear", shrink=True)


def decomposed(case, **settings):
    """That of the model, of another size."""
    return dataclasses.replace(facts.places(case, pe.DecomposedBias)[0].scheme, **settings)


def check_decomposed(case):
    """`out.native` and `out.resized_HxW`: a table that fits the image, and one that is resized."""
    tables = [case["par.rel_pos_h"], case["par.rel_pos_w"]]
    shapes = {"out.native": tuple(len(table) // 2 + 1 for table in tables)}
    shapes |= {name: tuple(shape) for name, shape, _ in found(case, r"resized_(\d+)x(\d+)")}
    for name, shape in shapes.items():
        query = case["in.q" if name == "out.native" else "in.q2"][:, :, None]
        params = {f"table_{axis}": resized(table, shape[axis])[None] for axis, table in enumerate(tables)}
        at, scheme = pe.positions.grid(shape), decomposed(case, heads=1, dim=query.shape[-1], shape=shape)
        bias = scheme.bind(params)(query, query, at, at)
        check_close(bias.reshape(case[name].shape), case[name], 4 * rounding(scheme.dim, query, *tables))
    for name, (queries, keys), theirs in found(case, r"get_rel_pos_q(\d+)_k(\d+)"):
        check_pooled(case, name, queries, keys, theirs)


def check_pooled(case, name, queries, keys, theirs):
    """Queries that are pooled more than keys stand further apart; read by queries of one channel each."""
    table, dim = case["par.rel_pos_h"], theirs.shape[-1]
    scheme = decomposed(case, heads=dim, dim=dim, shape=(max(queries, keys),))
    channels = np.tile(np.eye(dim, dtype=np.float32), (1, queries, 1, 1))
    at = [(max(queries, keys) // n * pe.positions.arange(n))[:, None] for n in (queries, keys)]
    bound = scheme.bind({"table_0": resized(table, scheme.shape[0])[None]})
    ours = np.moveaxis(bound(channels, np.zeros((1, keys, 1, dim), np.float32), *at)[0], 0, -1)
    check_close(ours, theirs, 4 * rounding(2, table))


def check_learned_logits(case):
    states, proj = case["in.relative_states"], case["par.proj"]
    scheme = facts.places(case, pe.RelativeLogits)[0].scheme
    scheme = dataclasses.replace(scheme, heads=states.shape[2], features=proj.shape[0], extent=proj.shape[1])
    key = np.zeros((1, len(case["in.kp"]), 1, 1), np.float32)
    bias = scheme.bind({"profiles": proj.T[None]})(states, key, case["in.qp"], case["in.kp"])
    check_close(bias, case["out.bias"], rounding(len(proj), states, proj))


def check_gated(case):
    """WavLM: the bias is that of a T5 table, also over another length, and the layer multiplies it by its gate."""
    table, x = case["par.rel_attn_embed.weight"], case["in.x"]
    heads, ran = table.shape[1], re.search(r"max_distance=(\d+)", case.meta["ran"])
    furthest = int(ran[1]) if ran else case.config["max_bucket_distance"]
    place = facts.only(facts.places(case, pe.GatedBias))
    t5 = dataclasses.replace(place.scheme.bias, heads=heads, buckets=len(table), max_distance=furthest)
    for name in ("out.bias", "out.bias_300"):
        if name in case.arrays:
            theirs = case[name].reshape(heads, *case[name].shape[-2:])
            check_equal(t5.bind({"table": jnp.asarray(table.T)})(*ranges(*theirs.shape[1:])), theirs)
    scheme = dataclasses.replace(place.scheme, bias=t5, features=x.shape[-1])
    params = {
        "table": jnp.asarray(table.T),
        "gate_kernel": case["par.gru_rel_pos_linear.weight"].T[None],
        "gate_bias": case["par.gru_rel_pos_linear.bias"][None],
        "gate_constant": case["par.gru_rel_pos_const"].reshape(-1),
    }
    check_layer(case, heads, bias=scheme.bind(params).of(x))
