"""Our schemes against the numbers of transformers' own modules: one test for each case in golden/cases.

Tolerances. transformers computes angles in float32. Its frequencies are often one ulp from the correctly rounded ones
(Phi's two, 2.4e-7 of the angle), and the rounded product adds another: cosines and sines differ by up to
`ANGLE * position * frequency`. From transformers' own stored frequencies ours are the same to the last operations,
which `FEW` covers. Arrays of float64 have neither error, and are held to 1e-6 at every position.
"""

import added
import content
import convolutions
import distances
import grids
import patches
import rotary
import sinusoids
import tables
import towers
import windows
from case import Case, Unsupported, array_names

FORMS = {  # an array that only this form of a rotary case has; the others have tables at given positions
    "in.aug_uniform_draws": grids.check_centers,
    "out.freqs_ci": grids.check_grid_from_one,
    "out.full_shape": grids.check_grid_from_one,
    "in.cos": rotary.check_given_tables,
    "out.table": rotary.check_joined_table,
    "out.cos_sin": rotary.check_hidden_states,
    "in.timestamps": grids.check_times,
    "in.keypoints": grids.check_keypoints,
    "in.grids": patches.check_turned,
    "in.grids.global": patches.check_turned,
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
    "sin_1d": added.check_sinusoid,
    "sin_2d": sinusoids.check_grid,
    "sin_2d_detr": sinusoids.check_masked,
    "sin_coords": sinusoids.check_coordinates,
    "sin_fourier": sinusoids.check_fourier,
    "conv_pos": convolutions.check,
    "abs_tiles": tables.check_tiles,
    "abs_axial": tables.check_axial,
    "abs_bucket2d": tables.check_buckets,
    "abs_interp2d": tables.check_resized,
    "abs_learned_2d": tables.check_axes,
    "tower": towers.check,
    "neighbours": towers.check,
    "bias_t5": distances.check_t5,
    "bias_alibi": distances.check_alibi,
    "bias_clip": distances.check_clipped,
    "abs_learned": added.check_learned,
    "posid_generate": added.check_ids_of_generate,
    "posid_padding": added.check_ids_of_padding,
    "rel_shaw": content.check_shaw,
    "rel_xl": content.check_xl,
    "rel_deberta": content.check_deberta,
    "bias_window": windows.check,
    "bias_box_relation": windows.check_box_rpb,
    "bias_decomposed": content.check_decomposed,
    "bias_learned_logits": content.check_learned_logits,
}
OF_ARRAY = {  # (mechanism, an array that only this form of its cases has)
    ("bias_t5", "out.b1d"): distances.check_boxes,
    ("bias_t5", "out.predict"): distances.check_prophetnet_buckets,
    ("bias_t5", "par.gru_rel_pos_const"): content.check_gated,
    ("abs_interp2d", "in.grids"): patches.check,
    ("vision_grid", "in.grids"): patches.check_standing,
    ("abs_learned_2d", "in.position_ids"): patches.check_places,
    ("abs_bucket2d", "in.grids"): patches.check,
    ("abs_learned", "par.HashBucketCodepointEmbedder_0.weight"): tables.check_hashed,
    ("abs_learned", "in.entity_ids"): added.check_mentions,
    ("abs_axial", "in.tags"): tables.check_paths,
    ("abs_interp2d", "in.input_values"): tables.check_patches,
    ("abs_learned", "in.pixel_values"): tables.check_patches,
    ("sin_coords", "in.bbox"): content.check_box_differences,
    ("bias_t5", "in.segments"): distances.check_segments,
    ("bias_t5", "out.main_bias"): distances.check_tables_of_states,
    ("bias_t5", "out.horizontal"): distances.check_centres,
}


def check_of(name, arrays):
    """What checks a case, by its mechanism and the names of its arrays; None where we have nothing for it."""
    mechanism = name.split("__")[0]
    if mechanism.startswith(("rope_", "mrope_")) and mechanism != "mrope_index":
        return check_rotary
    of_array = [check for (kind, array), check in OF_ARRAY.items() if kind == mechanism and array in arrays]
    return of_array[0] if of_array else OF_MECHANISM.get(mechanism)


def test_golden(case_name, cases):
    check = check_of(case_name, array_names(cases, case_name))
    if check is None:
        raise Unsupported(f"{case_name.split('__')[0]} of {case_name.split('__')[1]}: we have no scheme for it yet")
    check(Case(cases, case_name))
