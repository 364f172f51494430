"""Tables and sinusoids that are added to tokens, and the position ids that they are read with.

Which layout, which offset and how padding is counted come from `hf.from_config`; what was run, from the arrays.
"""

import dataclasses
import re

import facts
import jax.numpy as jnp
import numpy as np
import rotary
from case import Unsupported, check_close, check_equal
from rotary import ANGLE, FEW, call

import posembed_jax as pe

EXPONENTIAL = 1.2e-6  # relative error of the others' frequencies, which are float32 `exp(-log(base) i / n)`
SETTINGS = ("base", "layout", "denominator", "odd", "fractional")


def padding_ids(real, padding_idx):
    """Position ids of RoBERTa: padding at padding_idx, tokens from padding_idx + 1."""
    return np.asarray(pe.positions.from_mask(jnp.asarray(real), padding_position=-1)) + padding_idx + 1


# Sinusoids


class Sinusoids:
    """Those of the case's model: those of times where times came, those with a learned factor where one came."""

    def __init__(self, case):
        found = facts.places(case, pe.Sinusoidal)
        found = [one for one in found if one.scheme.fractional == ("in.t" in case.arrays)]
        found = [one for one in found if one.scheme.learned_amplitude == ("par.alpha" in case.arrays)]
        self.scheme, self.about = (found[0].scheme, found[0].about) if found else (rotary_table(case), {})
        for one in found:
            alike = all(getattr(one.scheme, name) == getattr(self.scheme, name) for name in SETTINGS)
            assert alike and one.about == self.about, found

    def frequencies(self, features):
        """The frequency of each channel, float64 `[features]`."""
        s = self.scheme
        half = features // 2 if s.odd == "zero" else (features + 1) // 2
        f = s.base ** (-np.arange(half) / (features / 2 if s.denominator == "half" else features // 2 - 1))
        return np.resize(np.repeat(f, 2) if s.layout == "interleaved" else np.tile(f, 2), features)

    def check(self, positions, theirs, weights=1.0):
        positions, features = np.asarray(positions), theirs.shape[-1]
        angle = np.abs(positions[..., None]) * self.frequencies(features) * self.scheme.scale
        for phase in ("exact", "float32"):
            scheme = dataclasses.replace(
                self.scheme, features=features, phase=phase, fractional=True, learned_amplitude=False
            )
            in_float64 = self.about.get("made_in") == "float64"
            wrong = (ANGLE if phase == "float32" else 0.0) if in_float64 else EXPONENTIAL
            check_close(call(scheme.bind({}), positions) * weights, theirs, wrong * angle + FEW)

    def check_table(self, table, start=0):
        self.check(pe.positions.arange(table.shape[-2], start), table.reshape(table.shape[-2:]))


def rotary_table(case):
    """RoFormer keeps the sines and cosines of its rotation as others keep what they add."""
    base = rotary.model(case).rotation.base
    return pe.Sinusoidal(features=2, base=base)


def check_sinusoid(case):
    """Tables from 0 or `first` on, what is read from them after some tokens of the past, times, padded sequences."""
    sinusoids = Sinusoids(case)
    if "in.input_ids" in case.arrays:
        return check_padded(case, sinusoids)
    if "in.t" in case.arrays:  # diffusion times are positions: float32, in some models counted in thousandths
        return sinusoids.check(case["in.t"], case["out.out"])
    if "in.x" in case.arrays:
        return check_scaled(case, sinusoids)
    for name, groups, theirs in case.outputs(r"[a-z]+\d*(?:_past(\d+))?(?:_\d+x\d+|_\d+x\d+)?"):
        past = int(groups[0] or 0)
        theirs = theirs / case.arrays.get("par.alpha", np.float32(1))
        sinusoids.check_table(theirs, past + (sinusoids.about.get("first", 0) if "table" not in name else 0))


def check_padded(case, sinusoids):
    """fairseq: positions start at padding_idx + 1, and the row of padding is zero.

    What a model fills into a table that its class left random is of no account: outputs inside of it are its rows.
    Past the end the class makes a new table, of sinusoids; padding then stands at padding_idx + past, and is not zero.
    """
    ids, filled = case["in.input_ids"], "filled_by_model" in sinusoids.about
    for name, (features, padding), table in case.outputs(r"table_(\d+)_pad(\d+)"):
        real, rows, label = ids != padding, np.arange(len(table)), f"{features}_pad{padding}"
        positions = padding_ids(real, padding)
        if sinusoids.about.get("position_ids") != "padding":  # XGLM's takes positions, and was given the ids as such
            sinusoids.check(rows, table, np.float32(rows != padding)[:, None])
            at = ids + sinusoids.about["first"]
            sinusoids.check(at, case[f"out.out_{label}"], np.float32(at != padding)[..., None])
            continue
        if filled:
            check_equal(learned_of(case[name], padding + 1)(positions - padding - 1), case[f"out.out_{label}"])
            sinusoids.check(positions + 4, case[f"out.out_past4_{label}"])
        else:
            sinusoids.check(rows, table, np.float32(rows != padding)[:, None])
            for past in (0, 4):
                theirs = case.arrays.get(f"out.out_past{past}_{label}" if past else f"out.out_{label}")
                if theirs is not None:
                    sinusoids.check(positions + past, theirs, np.float32(real)[..., None])
        if f"out.grown_{label}" in case.arrays:  # three tokens after 37: past the table, which is made longer
            first = positions[real].min() if filled else padding + 1
            sinusoids.check(pe.positions.arange(3, 37 + int(first))[None], case[f"out.grown_{label}"])


def check_scaled(case, sinusoids):
    """SpeechT5 adds the table times a learned scalar."""
    sinusoids.check_table(case["out.pe"])
    x = case["in.x"]
    scheme = dataclasses.replace(sinusoids.scheme, features=x.shape[-1])
    amplitude = {"amplitude": jnp.asarray(case["par.alpha"]).reshape(1)}
    ours = x + call(scheme.bind(amplitude), pe.positions.arange(x.shape[1]))[None]
    check_close(ours, case["out.out"], EXPONENTIAL * x.shape[1] + FEW * np.max(np.abs(x)))


# Learned tables


def learned_of(table, index_offset, out_of_range="error"):
    table = table.reshape(table.shape[-2:])
    scheme = pe.LearnedPositions(
        length=table.shape[0] - index_offset,
        features=table.shape[1],
        index_offset=index_offset,
        out_of_range=out_of_range,
    )
    return scheme.bind({"table": jnp.asarray(table)})


def learned_place(case, name="par.weight"):
    """Where the model has a learned table; of several, that of the length of the parameter, and of padding."""
    found = facts.places(case, pe.LearnedPositions)
    if "in.attention_mask" in case.arrays:
        found = [one for one in found if one.about.get("position_ids") == "padding"]
    if case.config:
        rows = case[name].reshape(case[name].shape[-2:]).shape[0]
        found = [one for one in found if one.scheme.length + one.scheme.index_offset == rows] or found
    return facts.only(found, "index_offset")


def check_learned(case):
    if "in.input_ids" in case.arrays:
        return check_sum(case)
    place = learned_place(case)
    table = case["par.weight"]
    if bits := place.about.get("bits"):  # I-BERT's, of whole numbers
        step = np.float32(np.abs(table).max()) / np.float32(2 ** (bits - 1) - 1)
        table = np.round(np.float32(1) / step * table) * step
    if "out.out" not in case.arrays:
        return check_lengths(case, place, table)
    bound = learned_of(table, place.scheme.index_offset, place.scheme.out_of_range)
    if place.about.get("position_ids") == "cells":
        return check_cells(case, bound)
    if "in.position_ids" in case.arrays and "out.out_ids" not in case.arrays:
        return check_equal(bound(case["in.position_ids"]), case["out.out"])
    if "in.attention_mask" in case.arrays:
        assert place.about["position_ids"] == "padding"
        positions = pe.positions.from_mask(jnp.asarray(case["in.attention_mask"] != 0), padding_position=-1)
        check_equal(bound(positions), case["out.out"])
        for _, (past,), theirs in case.outputs(r"out_past(\d+)") if "out.out_past2" in case.arrays else ():
            check_equal(bound(positions[:, past:]), theirs)
        if "out.position_ids" in case.arrays:
            check_equal(positions + place.scheme.index_offset, case["out.position_ids"])
        return
    if "out.out_ids" in case.arrays:
        check_equal(bound(case["in.position_ids"]), case["out.out_ids"].reshape(*case["in.position_ids"].shape, -1))
    length = case["out.out"].shape[-2]
    for _, groups, theirs in case.outputs(r"out(?:_past(\d+))?"):
        check_equal(jnp.broadcast_to(bound(pe.positions.arange(length, int(groups[0] or 0))), theirs.shape), theirs)


def check_lengths(case, place, table):
    """A table that is stretched to each length."""
    table = jnp.asarray(table.reshape(table.shape[-2:]))
    for _, (length,), theirs in case.outputs(r"length_(\d+)"):
        ours = pe.resize_table(table, table.shape[:1], (length,), shrink=True, **place.about["resize"])
        check_close(ours, theirs, 4 * FEW * np.abs(table).max())


def check_cells(case, bound):
    """TAPAS: from 0 on in each cell of a table, which is a row and a column."""
    columns, rows = np.moveaxis(case["in.cells"], -1, 0)
    check_equal(bound(pe.positions.from_segment_ids(1 + rows * (columns.max() + 1) + columns)), case["out.out"])


def check_mentions(case):
    """LUKE: an entity has the mean of the rows of its tokens, and none where it has none."""
    place = next(one for one in facts.places(case, pe.LearnedPositions) if one.about["position_ids"] == "mentions")
    bound = learned_of(case["par.position_embeddings.weight"], place.scheme.index_offset)
    at = case["in.position_ids"]
    rows = bound(np.maximum(at, 0).reshape(at.shape[0], -1)).reshape(*at.shape, -1)
    found = np.float64(rows) * (at >= 0)[..., None]
    x = case["par.entity_embeddings.weight"][case["in.entity_ids"]] + case["par.token_type_embeddings.weight"][0]
    ours = normalized(case, x + found.sum(-2) / np.maximum((at >= 0).sum(-1), 1)[..., None])
    check_close(ours, case["out.out"], 4 * FEW * np.abs(ours).max())


def embeddings_of(case):
    """name without `par.` and `.weight` -> table, of everything that is looked up."""
    return {
        key.removeprefix("par.").removesuffix(".weight"): case[key]
        for key in case.arrays
        if re.fullmatch(r"par\..*embed(ding|dings)?\.weight", key)
    }


def normalized(case, x):
    """LayerNorm, if the case has one; MobileBERT's is a scale and a shift alone."""
    name = next((f"par.{name}" for name in ("LayerNorm", "layernorm") if f"par.{name}.weight" in case.arrays), None)
    if name is None:
        return x
    if case.config.get("normalization_type") != "no_norm":
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + case.config.get("layer_norm_eps", 1e-12))
    return x * case[f"{name}.weight"] + case[f"{name}.bias"]


def tokens(case, tables, ids):
    """The tokens before anything of positions: in MobileBERT with their neighbours, in RoCBert with glyph and sound."""
    x = np.asarray(pe.embed(jnp.asarray(tables.get("word_embeddings", tables.get("token_embedding"))), ids))
    if "par.embedding_transformation.weight" in case.arrays:
        nothing = np.zeros_like(x[:, :1])
        x = np.concatenate([x[:, 1:], nothing, x, nothing, x[:, :-1]], axis=1)
        x = np.concatenate(np.split(x, 3, axis=1), axis=-1)
        return x @ case["par.embedding_transformation.weight"].T + case["par.embedding_transformation.bias"]
    if "par.map_inputs_layer.weight" in case.arrays:
        others = [
            np.broadcast_to(tables[f"{name}_embed"][0], (*ids.shape, tables[f"{name}_embed"].shape[1]))
            for name in ("shape", "pronunciation")
        ]
        return (
            np.concatenate([x, *others], axis=-1) @ case["par.map_inputs_layer.weight"].T
            + case["par.map_inputs_layer.bias"]
        )
    return x


def check_sum(case):
    """BERT-likes: token, token type and position rows, summed, normalized, and in FNet projected."""
    ids, tables = case["in.input_ids"], embeddings_of(case)
    known = {"word_embeddings", "token_embedding", "token_type_embeddings", "position_embeddings", "position_embedding"}
    known |= {"shape_embed", "pronunciation_embed"}
    if beside := {name for name in tables if name not in known and not name.startswith("visual_")}:
        raise Unsupported(f"sums with {sorted(beside)}, which are no positions")
    name = "position_embeddings" if "position_embeddings" in tables else "position_embedding"
    place = learned_place(case, f"par.{name}.weight")
    if place.about.get("position_ids") == "padding":
        real = ids != place.scheme.index_offset - 1
        positions = pe.positions.from_mask(jnp.asarray(real), padding_position=-1)
    else:
        positions = case.arrays.get("in.position_ids", np.arange(ids.shape[1])[None]).astype(np.int32)
    x = np.float64(tokens(case, tables, ids))
    x = x + np.float64(learned_of(tables[name], place.scheme.index_offset)(positions))
    if "token_type_embeddings" in tables:
        x = x + np.float64(tables["token_type_embeddings"][0])
    ours = normalized(case, x)
    if "par.projection.weight" in case.arrays:
        ours = ours @ np.float64(case["par.projection.weight"]).T + case["par.projection.bias"]
    check_close(ours, case["out.out"], 4 * FEW * max(1.0, np.abs(ours).max()))


# Position ids


def check_ids_of_generate(case):
    check_equal(pe.positions.from_mask(jnp.asarray(case["in.attention_mask"] != 0)), case["out.position_ids"])


def check_ids_of_padding(case):
    for _, (padding,), theirs in case.outputs(r"pad(\d+)"):
        real = case["in.input_ids"] != padding
        check_equal(padding_ids(real, padding), theirs)
        if f"out.pad{padding}_past3" in case.arrays:  # three tokens in a cache are three real tokens in front
            longer = np.concatenate([np.ones_like(real[:, :3]), real], axis=1)
            check_equal(padding_ids(longer, padding)[:, 3:], case[f"out.pad{padding}_past3"])
        if f"out.embeds_pad{padding}" in case.arrays:
            embeds = case[f"out.embeds_pad{padding}"]
            check_equal(pe.positions.arange(embeds.shape[1], padding + 1)[None], embeds)
