"""Biases of the distance: T5's buckets, ALiBi. Settings come from `hf.from_config`, as those of tables do."""

import dataclasses

import content
import facts
import jax
import jax.numpy as jnp
import numpy as np
from case import check_close, check_equal

import posembed_jax as pe

bucket = jax.jit(pe.T5Bias.bucket, static_argnums=0)


def t5(case):
    """The model's biases by direction; older modules are told the direction by `is_decoder`."""
    found = facts.places(case, pe.T5Bias)
    config = case.config.get("text_config", case.config)
    wanted = not config.get("is_decoder", False)
    of_tokens = [one for one in found if one.about.get("scale", 1) == 1 and "blocks" not in one.about]
    found = [one for one in of_tokens if one.scheme.bidirectional == wanted] or of_tokens
    return facts.only(found, "heads", "buckets", "max_distance", "bidirectional").scheme


def check_t5(case):
    scheme = t5(case)
    for _, (first, last), theirs in content.found(case, r"bucket_(-\d+)\.\.(\d+)"):
        check_equal(bucket(scheme, jnp.arange(first, last + 1)), theirs[0])
    bias = scheme.bind({"table": jnp.asarray(case["par.relative_attention_bias"].T)})
    if "out.bias" in case.arrays:  # MPNet's, of a sequence from 0 on
        at = pe.positions.arange(case["out.bias"].shape[-1])
        check_equal(jnp.broadcast_to(bias(at, at), case["out.bias"].shape), case["out.bias"])
        return
    if "out.side" in case.arrays:
        check_global_keys(case)
    for _, (queries, keys, past), theirs in case.outputs(r"bias_q(\d+)_k(\d+)_past(\d+)"):
        check_equal(bias(pe.positions.arange(queries, past), pe.positions.arange(keys)), theirs[0])


def check_global_keys(case):
    """LongT5: keys of blocks of tokens; what is left of a block belongs to the last whole one of the real tokens."""
    place = next(one for one in facts.places(case, pe.T5Bias) if "blocks" in one.about)
    size, theirs = place.about["blocks"], case["out.side"]
    bias = place.scheme.bind({"table": jnp.asarray(case["par.global_relative_attention_bias"].T)})
    for real, their in zip(case["in.attention_mask"].sum(1), theirs, strict=True):
        whole, keys = real // size, pe.positions.arange(their.shape[-1])
        queries = jnp.minimum(pe.positions.arange(int(real)) // size, int(whole) - 1)
        check_equal(bias(queries, keys)[..., :whole], their[:, :real, :whole])
        assert np.all(their[:, :real, whole:] < -1e9)  # nobody sees blocks of padding


def check_segments(case):
    """CPM-Ant: buckets within a segment, and a row for each pair of segments."""
    place, table, ids = (
        facts.only(facts.places(case, pe.T5Bias), "heads"),
        case["par.relative_attention_bias"],
        case["in.segments"],
    )
    rows = table[place.scheme.buckets :]
    assert len(rows) == place.about["rows_between_segments"]
    at = pe.positions.arange(ids.shape[1])
    within = place.scheme.bind({"table": jnp.asarray(table[: place.scheme.buckets].T)})(at, at)
    between = rows[ids[:, :, None] * round(len(rows) ** 0.5) + ids[:, None]]
    same = (ids[:, :, None] == ids[:, None])[:, None]
    check_equal(jnp.where(same, within, np.moveaxis(between, -1, 1)), case["out.bias"])


def check_clipped(case):
    place = facts.only(facts.places(case, pe.ClippedBias), "heads", "left", "right", "symmetric")
    at = pe.positions.arange(case["out.bias"].shape[-1])
    bias = place.scheme.bind({"table": jnp.asarray(case["par.table"].T)})
    check_equal(bias(at, at)[None], case["out.bias"])


def check_centres(case):
    """UDOP: distances of tokens, and of the middles of boxes in hundredths, cut to whole numbers."""
    left, upper, right, lower = np.moveaxis(case["in.bbox"], -1, 0)
    middles = {"horizontal": np.float32(left + right) / 2, "vertical": np.float32(upper + lower) / 2}
    for place in facts.places(case, pe.T5Bias):
        of = place.about.get("of")
        if of is None:  # the decoder's
            continue
        at = middles.get(of, np.arange(left.shape[1], dtype=np.float32)[None])
        distance = ((at[:, None] - at[:, :, None]) * np.float32(place.about["scale"])).astype(np.int32)
        bias = place.scheme.at({"table": jnp.asarray(case[f"par.{of}"].T)}, jnp.asarray(distance))
        check_equal(jnp.moveaxis(bias, 0, 1) if bias.ndim == 4 else bias, case[f"out.{of}"])


def check_boxes(case):
    """LayoutLM: buckets of the tokens' distance, and of the boxes' left and lower edges."""
    places = {one.name: one.scheme for one in facts.places(case, (pe.T5Bias, pe.AxisBias))}
    at = case["in.position_ids"]
    bias = places["attention.tokens"].bind({"table": jnp.asarray(case["par.rel_pos_bias.weight"])})
    check_equal(bias(at, at), case["out.b1d"])
    tables = {f"table_{i}": jnp.asarray(case[f"par.rel_pos_{axis}_bias.weight"]) for i, axis in enumerate("xy")}
    edges = case["in.bbox"][..., [0, 3]]
    boxes = places["attention.boxes"].bind(tables)(edges, edges)
    check_equal(boxes, case["out.b2d"])
    if "out.attn_out" in case.arrays:  # LayoutLMv3 divides biases as it does products
        divisor = {one.name: one.about["divided_by"] for one in facts.places(case, (pe.T5Bias, pe.AxisBias))}
        added = bias(at, at) / divisor["attention.tokens"] + boxes / divisor["attention.boxes"]
        content.check_layer(case, bias.scheme.heads, bias=added)


def check_prophetnet_buckets(case):
    """Buckets of the two streams; the predicting stream sees each key also from the position before it."""
    one_way = facts.only(facts.places(case, pe.T5Bias)).scheme
    both_ways = dataclasses.replace(one_way, bidirectional=True)
    at = case["in.position_ids"][0]
    check_equal(bucket(one_way, at[None, :] - at[:, None]), case["out.main"][0])
    streams = np.concatenate([at - 1, at])
    check_equal(bucket(one_way, streams[None, :] - at[:, None]), case["out.predict"][0])
    half = case["out.uni"].shape[1] // 2
    for settings, name in ((one_way, "out.uni"), (both_ways, "out.bi")):
        check_equal(bucket(settings, jnp.arange(-half, half)), case[name][0])


def check_tables_of_states(case):
    """ProphetNet: each query has a table of its own, which a linear layer makes of its hidden state.

    Of its main stream. transformers gives the numbers of its predicting stream to other tokens than they are of.
    """
    place = facts.only(facts.places(case, pe.T5Bias))
    scheme, at, kernel = place.scheme, case["in.position_ids"][0], case["par.relative_pos_embeddings.weight"]
    assert place.about["table_of"] == "hidden states"
    tables = case["in.states"][0] @ kernel.T + case["par.relative_pos_embeddings.bias"]
    tables = tables.reshape(len(at), scheme.buckets, scheme.heads).swapaxes(1, 2)
    bias = jax.vmap(lambda table, query: scheme.bind({"table": table})(query[None], at)[:, 0])(tables, at)
    tolerance = content.rounding(kernel.shape[1], case["in.states"], kernel)
    check_close(np.swapaxes(bias, 0, 1)[None], case["out.main_bias"], tolerance)


def ulps(ours, theirs):
    return np.abs(np.float64(ours) - np.float64(theirs)) / np.spacing(np.abs(theirs))


def check_alibi(case):
    """`slope * key position` is our bias of a query at position 0. Padded keys stand at 0, as from_mask puts them.

    The slopes are float32 powers `x ** n` of a rounded x, which is wrong n times as much as x is: up to n / 2 ulp
    where x is not a power of two, and exact where it is. Falcon rounds slopes and
    biases to bfloat16, which hides all of that.
    """
    place = facts.only(facts.places(case, pe.ALiBi), "symmetric")
    build = loader_of(place)
    if "in.attention_mask" not in case.arrays:
        return check_last_query(case, build)
    for _, (heads,), theirs in case.outputs(r"slopes_h(\d+)") if "out.slopes_h8" in case.arrays else ():
        slopes = build(heads).bind({}).arrays["slopes"]
        assert np.max(ulps(slopes, theirs)) <= (0 if heads <= 8 else heads // 2)
    keys = pe.positions.from_mask(case["in.attention_mask"] != 0)
    for _, (heads,), theirs in case.outputs(r"h(\d+)"):
        bias = build(heads).bind({})(jnp.zeros(1, jnp.int32), keys)
        theirs = theirs.reshape(bias.shape)
        if "rounded_to" in place.about:
            check_equal(bias.astype(place.about["rounded_to"]).astype(jnp.float32), theirs)
            continue
        assert np.max(ulps(bias, theirs)) <= (0 if heads in (1, 2, 4, 8) else 1 + heads // 2)


def loader_of(place):
    """How the model of this place builds its bias for other numbers of heads."""
    from posembed_jax.hf.builders import rounded_alibi

    if place.scheme.slopes is not None:
        return lambda heads: rounded_alibi(heads, place.scheme.symmetric)
    return lambda heads, **settings: dataclasses.replace(place.scheme, heads=heads, **settings)


def check_last_query(case, build):
    """MPT makes powers in float32, but of two, which are exact for these head counts."""
    for name, (heads, keys), theirs in case.outputs(r"h(\d+)_s(\d+)(?:_max\d+)?"):
        bias_max = float(name.partition("_max")[2] or 8)
        bias = build(heads, bias_max=bias_max).bind({})(pe.positions.arange(1, keys - 1), pe.positions.arange(keys))
        assert np.max(ulps(bias, theirs)) <= 1, name
