"""Biases of the distance: T5's buckets, ALiBi. Settings come from `hf.from_config`, as those of tables do."""

import dataclasses

import facts
import jax
import jax.numpy as jnp
import numpy as np
from case import check_equal

import posembed_jax as pe

bucket = jax.jit(pe.T5Bias.bucket, static_argnums=0)


def t5(case):
    """The model's biases by direction; older modules are told the direction by `is_decoder`."""
    found = facts.places(case, pe.T5Bias)
    config = case.config.get("text_config", case.config)
    wanted = not config.get("is_decoder", False)
    found = [one for one in found if one.scheme.bidirectional == wanted and "scale" not in one.about] or found
    return facts.only(found, "heads", "buckets", "max_distance", "bidirectional").scheme


def check_t5(case):
    scheme = t5(case)
    for _, (first, last), theirs in case.outputs(r"bucket_(-\d+)\.\.(\d+)"):
        check_equal(bucket(scheme, jnp.arange(first, last + 1)), theirs[0])
    bias = scheme.bind({"table": jnp.asarray(case["par.relative_attention_bias"].T)})
    if "out.bias" in case.arrays:  # MPNet's, of a sequence from 0 on
        at = pe.positions.arange(case["out.bias"].shape[-1])
        check_equal(jnp.broadcast_to(bias(at, at), case["out.bias"].shape), case["out.bias"])
        return
    for _, (queries, keys, past), theirs in case.outputs(r"bias_q(\d+)_k(\d+)_past(\d+)"):
        check_equal(bias(pe.positions.arange(queries, past), pe.positions.arange(keys)), theirs[0])


def check_boxes(case):
    """LayoutLM: buckets of the tokens' distance, and of the boxes' left and lower edges."""
    places = {one.name: one.scheme for one in facts.places(case, (pe.T5Bias, pe.AxisBias))}
    at = case["in.position_ids"]
    bias = places["attention.tokens"].bind({"table": jnp.asarray(case["par.rel_pos_bias.weight"])})
    check_equal(bias(at, at), case["out.b1d"])
    tables = {f"table_{i}": jnp.asarray(case[f"par.rel_pos_{axis}_bias.weight"]) for i, axis in enumerate("xy")}
    edges = case["in.bbox"][..., [0, 3]]
    check_equal(places["attention.boxes"].bind(tables)(edges, edges), case["out.b2d"])


def check_prophetnet_buckets(case):
    """Buckets of the two streams; the predicting stream sees each key also from the position before it."""
    one_way, both_ways = (
        pe.T5Bias(heads=1, buckets=32, max_distance=128, bidirectional=bidirectional) for bidirectional in (False, True)
    )
    at = case["in.position_ids"][0]
    check_equal(bucket(one_way, at[None, :] - at[:, None]), case["out.main"][0])
    streams = np.concatenate([at - 1, at])
    check_equal(bucket(one_way, streams[None, :] - at[:, None]), case["out.predict"][0])
    half = case["out.uni"].shape[1] // 2
    for settings, name in ((one_way, "out.uni"), (both_ways, "out.bi")):
        check_equal(bucket(settings, jnp.arange(-half, half)), case[name][0])


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
