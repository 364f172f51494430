"""Rotary cases: everything that a case needs is in its configuration, which `hf.from_config` reads.

The forms in which transformers keeps tables and takes queries are told from the arrays: a table in which every value
stands twice, rotated heads before or after the tokens, channels stored in another order than they were given.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from case import check_close

import posembed_jax as pe
from posembed_jax import hf

ANGLE = 3.6e-7  # relative difference of two float32 angles
FEW = 3e-7  # absolute, of values near 1

call = jax.jit(lambda bound, *args: bound(*args))
rotate = jax.jit(pe.rotate, static_argnames=("layout", "rotated", "blocks", "tables"))


def towers(positions):
    """The model itself, then its towers, that of the text first."""
    yield positions
    for name in sorted(positions.towers, key=lambda name: (name != "text_config", name)):
        yield from towers(positions.towers[name])


def model(case):
    """The same positions from the file as it was given and as transformers saves it."""
    found = []
    for config in case.configs or [{}]:
        config = {"model_type": case.model, **{k: v for k, v in config.items() if v is not None}}
        rotary = [t for t in towers(hf.from_config(config, follow_upstream_bugs=True)) if any(t.rotations.values())]
        assert rotary, f"no rotation in {case.model}"
        found.append(rotary[0])
    assert all(other.rotations == found[0].rotations for other in found), [other.rotations for other in found]
    return found[0]


def once(table, width):
    """transformers' table, in which every value may stand twice, next to each other or a half apart -> each once."""
    if table.shape[-1] == width:
        return table
    assert table.shape[-1] == 2 * width, (table.shape, width)
    if np.array_equal(table[..., :width], table[..., width:]):
        return table[..., :width]
    if np.array_equal(table[..., ::2], table[..., 1::2]):
        return table[..., ::2]
    blocks = table.reshape(*table.shape[:-1], 2, 2, -1)  # a half apart in each of two blocks
    assert np.array_equal(blocks[..., 0, :], blocks[..., 1, :])
    return blocks[..., 0, :].reshape(*table.shape[:-1], width)


def heads_last(x, tokens):
    """`[B, N, T, D]` or `[T, N, D]` -> `[..., T, N, D]`."""
    swap = x.ndim == 4 and x.shape[2] == tokens and x.shape[1] != tokens
    return np.swapaxes(x, 1, 2) if swap else x


def axes_last(case, rope, positions, table):
    """transformers has the numbers of a position first in text models, last in vision models."""
    if rope.position_axes is None or positions.shape == (*table.shape[:-1], rope.position_axes):
        return positions
    if positions.shape[1:] == table.shape[:-1]:
        return np.moveaxis(positions, 0, -1)
    assert positions.shape == (*table.shape[1:-1], rope.position_axes), (positions.shape, table.shape)
    return positions


def in_use(scaling, positions, before):
    """transformers' length grows with the largest position of a batch; dynamic NTK's only goes back to its start."""
    length = int(np.max(positions)) + 1
    if isinstance(scaling, pe.LongRoPE):
        return length
    return length if length < scaling.original_length else max(length, before, scaling.original_length)


def tables_of(case):
    """(number of the call, layer type, name of its cos) of each pair of tables of the case."""
    for name in sorted(case.arrays):
        found = re.fullmatch(r"out\.(cos|freqs_cis)((?:_text)?)((?:\.\d+)?)((?:\.[a-z]\w*?)?)((?:_f64)?)", name)
        if found:
            kind, text, number, layer, wide = found.groups()
            yield name, kind, text, number, layer, wide


def stored(case, name, kind):
    if kind == "freqs_cis":
        table = case[name]
        return (table.real, table.imag) if np.iscomplexobj(table) else (table[..., 0], table[..., 1])
    return case[name], case[name.replace("out.cos", "out.sin")]


def check_given_tables(case):
    """Queries are the last of the keys: they take the last rows of the tables."""
    rope = model(case).rotation
    cos, sin = (jnp.asarray(once(case[f"in.{name}"], case["in.cos"].shape[-1] // 2)) for name in ("cos", "sin"))
    for name in "qk":
        x = jnp.swapaxes(jnp.asarray(case[f"in.{name}"]), 1, 2)
        ours = rotate(x, cos[:, -x.shape[1] :], sin[:, -x.shape[1] :], layout=rope.layout)
        check_close(jnp.swapaxes(ours, 1, 2), case[f"out.{name}_rot"], FEW * np.max(np.abs(x)))


def check_joined_table(case):
    """GPT-J's table: sines, then cosines, of positions 0, 1, 2, ...; then the same of queries as `[B, T, N, D]`."""
    table, q = case["out.table"], jnp.asarray(case["in.q"])
    kind = model(case).rotation
    rope = dataclasses.replace(kind, dim=table.shape[1], phase="float32")
    cos, sin = rope.cos_sin(pe.positions.arange(len(table)))
    check_close(np.concatenate([sin, cos], -1), table, ANGLE * len(table) + FEW)
    turned = call(rope.bind({}), q, jnp.asarray(case["in.position_ids"]))
    check_close(turned, case["out.q_rot"], 4 * (ANGLE * len(table) + FEW))


def check_hidden_states(case):
    """Conformers rotate the hidden states, `[B, T, F]`, before the projections: heads of F."""
    x, table = case["in.x"], case["out.cos_sin"]
    rope = dataclasses.replace(model(case).rotation, phase="float32")
    positions = pe.positions.arange(x.shape[1])
    heads = x.reshape(*x.shape[:2], -1, rope.dim)
    ours = call(rope.bind({}), jnp.asarray(heads), positions)
    check_close(ours, case["out.h_rot"].reshape(heads.shape), 4 * (ANGLE * x.shape[1] + FEW) * np.max(np.abs(x)))
    for ours, theirs in zip(rope.cos_sin(positions), table, strict=True):
        check_close(ours, once(theirs.reshape(x.shape[1], -1), rope.dim // 2), ANGLE * x.shape[1] + FEW)


def check(case):
    """Tables, and rotated queries and keys, of every call and every layer type."""
    positions_of = model(case)
    lengths, tested = {}, 0
    for name, kind, text, number, layer, wide in sorted(tables_of(case), key=lambda found: found[3]):
        rope = positions_of.rotations.get(layer[1:], plain(positions_of.rotations))
        assert rope is not None, (layer, positions_of.rotations)
        theirs = stored(case, name, kind)
        at = axes_last(case, rope, case[f"in.position_ids{text}{number}"], theirs[0])
        length = {}
        if isinstance(rope.scaling, pe.DynamicNTK | pe.LongRoPE):
            key = layer, number
            if key not in lengths:
                before = max([0, *(used for (other, _), used in lengths.items() if other == layer)][-1:])
                lengths[key] = in_use(rope.scaling, at, before)
            length = {"length": lengths[key]}
        check_tables(rope, at, theirs, wide=bool(wide), length=length)
        tested += 1
        if not wide and not text:
            turning = "qkv" if positions_of.rotates_values else "qk"
            check_rotated(case, rope, at, theirs, f"{number}{layer}", length, turning)
    assert tested, sorted(case.arrays)
    check_stored_frequencies(case, positions_of)


def plain(rotations):
    """The one for all layers, or that of layers which take positions as they are."""
    return rotations.get("") or next((rope for rope in rotations.values() if rope and rope.scaling is None), None)


def angles(rope, at, length):
    settled = dataclasses.replace(rope, **length)
    frequencies = np.abs(np.array(settled.frequencies(), np.float64))
    numbers = at[..., None] if rope.axes is None else at[..., np.array(rope.axes.axis)]
    return np.abs(numbers * frequencies)


def check_tables(rope, at, theirs, *, wide, length=None):
    """float64 tables to 1e-6 at every position; float32 ones as far as their angles are rounded."""
    length = length or {}
    mode = rope if wide else dataclasses.replace(rope, phase="float32")
    params = pe.init(mode, jax.random.key(0))
    ours = mode.cos_sin(jnp.asarray(at), params, **length)
    angle = angles(rope, at, length)
    # transformers' base of dynamic NTK is rounded to float32 as well; so is what we learn
    loose = 3 * ANGLE if length or rope.learned else 0.0 if wide else ANGLE
    tolerance = loose * angle + (1e-6 if wide else 2 * FEW)
    for table, their in zip(ours, theirs, strict=True):
        their = their[0] if their.ndim == at.ndim + (rope.axes is None) + 1 and len(their) == 1 else their
        sign = -1.0 if rope.clockwise and their is theirs[1] else 1.0
        check_close(sign * np.asarray(table), once(their, table.shape[-1]), tolerance)


def check_rotated(case, rope, at, theirs, suffix, length, turning):
    assert "v" in turning or f"out.v_rot{suffix}" not in case.arrays
    bound = dataclasses.replace(rope, phase="float32").bind(pe.init(rope, jax.random.key(0)), **length)
    tokens = theirs[0].shape[-2]
    angle = float(np.max(angles(rope, at, length)))
    for name in turning:
        turned = case.arrays.get(f"out.{name}_rot{suffix}")
        if turned is None:
            continue
        x = case.arrays.get(f"in.{name}{suffix}", case.arrays.get(f"in.{name}"))
        if (
            tokens not in x.shape[:-1] and tokens in turned.shape[:-1]
        ):  # some functions turn, and return, the first ones
            x = x[..., :tokens, :]
        if tokens not in x.shape[:-1]:  # keys of several pictures
            check_turned(rope, x, turned, jnp.asarray(at))
            continue
        x, turned = heads_last(x, tokens), heads_last(turned, tokens)
        ours = np.asarray(call(bound, jnp.asarray(x), jnp.asarray(at)))
        tolerance = (3 * ANGLE * angle + 2 * FEW) * 3 * np.max(np.abs(x))
        same(rope, ours, turned, tolerance)


def check_turned(rope, x, turned, at):
    """x `[B, N, T, D]` or `[B, T, N, D]`; tokens beyond those that stand somewhere are at 0, which turns nothing.

    Keys of several pictures repeat their positions.
    """
    tokens = x.shape[2] if x.shape[2] >= len(at) else x.shape[1]
    times, rest = divmod(tokens, len(at))
    at, nowhere = jnp.tile(at, (times, 1)), jnp.zeros((rest, at.shape[1]), at.dtype)
    at = jnp.concatenate([at, nowhere])
    x, turned = heads_last(x, tokens), heads_last(turned, tokens)
    same(rope, call(rope.bind({}), jnp.asarray(x), at), turned, 20 * FEW * np.max(np.abs(x)))


def same(rope, ours, turned, tolerance):
    """DeepSeek leaves neighbours a half apart: our result, its channels in another order, which attention ignores."""
    forms = [ours]
    if rope.layout == "interleaved":
        forms.append(pe.permute_layout(ours, source="interleaved", target="half", dim=rope.dim, rotated=rope.rotated))
    # Some of its functions are given, and return, the channels that turn alone.
    errors = [np.max(np.abs(np.float64(form[..., : turned.shape[-1]]) - turned)) for form in forms]
    assert min(errors) <= tolerance, (errors, tolerance)


def check_stored_frequencies(case, positions_of):
    for layer, rope in positions_of.rotations.items():
        name = f"out.inv_freq.{layer}" if layer else "out.inv_freq"
        if name in case.arrays and rope is not None and not isinstance(rope.scaling, pe.DynamicNTK | pe.LongRoPE):
            plain = dataclasses.replace(rope, axes=None) if rope.axes is None else None
            if plain is not None:
                ours = np.array(plain.frequencies(), np.float32)
                rounded = ANGLE if rope.scaling is None else 2 * ANGLE  # it scales in float32, too
                np.testing.assert_allclose(ours, case[name], rtol=rounded)


def check_scale(case):
    """What multiplies the logits, and which layers rotate at all."""
    found = model(case)
    if "out.scaling" in case.arrays:
        np.testing.assert_allclose(found.softmax_scale, case["out.scaling"], rtol=1e-12)
    if "out.no_rope_layers" in case.arrays:  # 1 where a layer rotates
        assert [int(layer is not None) for layer in found.layers] == case["out.no_rope_layers"].tolist()
