"""Write posembed_jax/hf/rotary_types.json: what a configuration loader must know of transformers' rotary model types.

Run it in an environment that has the transformers release to read (and torch):

    python tests/golden/make_types.py posembed_jax/hf/rotary_types.json

Every model type whose classes apply a rotation is read, from the source: its configuration class, and the functions
that its model classes reach. With `--bodies` the script prints the source of every body that has no label yet.
Digests are those of Python 3.11's ast.unparse.
"""

import argparse
import ast
import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import logging
import pathlib
import re
import warnings

from index_rules import index_rule
from layer_rules import ROTATES, layer_types
from source_probes import entries, keeps_null_entries, older_type_is_lost, reached, sources

from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.model import Model

CONFIG_KEYS = (
    "num_hidden_layers",
    "rope_local_base_freq",
    "global_rope_theta",
    "local_rope_theta",
    "full_attention_interval",
    "rope_parameters",
    "head_dim",
    "query_pre_attn_scalar",
    "attention_multiplier",
    "projection_dim",
    "memory_attention_hidden_size",
    "memory_attention_downsample_rate",
    "memory_attention_num_attention_heads",
    "hidden_size",
    "num_attention_heads",
    "num_heads",
    "speech_encoder_attention_heads",
    "embed_dim",
    "d_model",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "global_head_dim",
    "no_rope_layers",
    "no_rope_layer_interval",
    "rope_interleave",
    "rotary_dim",
    "rotary_pct",
    "rotary_emb_base",
    "rotary_embedding_base",
    "rope_theta",
    "spatial_merge_size",
    "patch_size",
    "image_size",
    "temporal_patch_size",
    "attribute_map",
    "sliding_window_pattern",
    "pos_embed_shift",
    "pos_embed_jitter",
    "pos_embed_rescale",
    "position_embedding_type",
    "position_embeddings_type",
    "num_register_tokens",
    "_rope_type_labels",
    "cross_attention_layers",
    "sliding_window",
    "use_mem_rope",
    "use_rotary_embedding",
    "rotary_value",
    "attn_temperature_tuning",
    "attn_scale",
    "floor_scale",
)
POSITION_KEY = re.compile(r"rope|rotary|theta|head_dim|partial|position|mrope|alibi|nope|interleave|scaling|pos_embed")
ROTARY_CLASS = re.compile(r"Rotary|Rope|RoPE|PositionalEncoder$")
ANGLES = re.compile(r"^create_sinusoidal_positions$|SinusoidalPositionalEmbedding$")
APPLY = re.compile(r"(^|_)apply.*(rotary|rope)")
ROTATE = re.compile(r"^_?rotate_|^_apply_rotary_emb$")
SKIPPED_METHODS = {"_init_weights", "extra_repr"}

KINDS = ("default", "axial", "init", "recompose", "forward", "apply", "rotate")
METHODS = {
    "default": "compute_default_rope_parameters",
    "axial": "compute_axial_rope_parameters",
    "init": "__init__",
    "recompose": "recomposition_frequencies",
    "forward": "forward",
}

# The bodies of transformers 5.23.0, each read and named. Bodies that do the same mathematics share a label.
LABELS = {
    "default": {
        "141e0734": "full_theta_attribute",
        "9f5aff63": "full_theta_attribute",
        "7cec407c": "full",
        "339f65d9": "full",
        "f7a131b4": "full_per_layer",
        "88d7a68e": "partial",
        "c3555e2a": "partial",
        "f06890c5": "partial",
        "877ddaca": "partial_per_layer",
        "74367c07": "partial_per_layer",
        "53f3e498": "partial_per_layer_default_0.334",
        "65563139": "dinov3",
        "68d05212": "full_ernie_permuted",
    },
    "axial": {
        "044b5a3c": "half_of_memory_head",
        "dde0bded": "half_head",
        "35ad6195": "half_head_of_embed_dim",
        "2fe20845": "third_of_head",
        "fbaa8456": "even_then_odd",
    },
    "init": {
        "37df82e2": "lightglue",
        "14b5361f": "conformer",
        "3a34611f": "conformer",
        "72ad20ef": "conformer",
        "0c898ce9": "default_only_stored",
        "4138fc38": "default_only_stored",
        "ba33b376": "scaled_time_angles",
        "cfe8b13e": "scaled",
        "1cb4e26f": "scaled",
        "20e82b49": "axial_only",
        "98efc553": "axial_only",
        "84bdc29e": "scaled_per_layer",
        "9e71789e": "scaled_mrope",
        "9830825c": "scaled_mrope",
        "629129d8": "scaled_mrope",
        "ec3cb76f": "scaled_mrope",
        "7c83ffe7": "scaled_per_layer_own_config",
        "3523c8c4": "scaled_or_ntk_alpha",
        "33e0b5a1": "clvp",
        "99a9771e": "scaled_per_layer_mrope",
        "40e833ef": "scaled_per_label",
        "884520fe": "dinov3",
        "933c5a92": "default_only",
        "fcbdbeee": "default_only",
        "ab30dbf4": "default_only_mrope",
        "918f4cc5": "scaled_or_ntk_alpha_mrope",
        "5a24caa7": "scaled_per_declared_label",
        "9c5dfeb2": "llama4_vision",
        "4c24aa49": "scaled_learned_alpha",
        "2125e5ec": "scaled_or_forced_default",
        "a4e8c2dc": "scaled_in_forward",
    },
    "recompose": {
        "9606251c": "hw_twice",
        "263b769e": "mrope_interleaved",
        "58e23c72": "mrope_interleaved",
        "4ac41aea": "mrope_sections",
        "b76c6947": "mrope_sections",
        "3b9b6e05": "mrope_sections_pairs",
        "166bee5b": "ernie_hw_then_t_pairs",
        "72b15400": "h_twice_w_twice",
        "9e68e6c5": "xdrope_sections",
        "6bcafaf4": "wh_pairs",
        "5b57b0af": "wh_alternating_twice",
        "d68808bc": "thw_twice",
        "6998a142": "row_col_alternating_twice",
        "36a45f48": "h_low_w_high_twice",
        "8f6f343a": "hw_pairs",
        "5abedfbb": "wh_twice",
    },
    "forward": {
        "2a06cf46": "lightglue",
        "dd776065": "conformer",
        "093a5bc8": "gptj_sin_then_cos",
        "a66bb5f2": "roformer_sin_then_cos",
        "c1fbac69": "half_tables",
        "c94de314": "musicflamingo_time",
        "55f78b1e": "half_tables",
        "264fad4e": "half_tables_float32",
        "457f6019": "half_tables_per_layer",
        "c4db0b94": "half_tables_per_layer_float32",
        "fa1f8747": "pair_tables",
        "715018c6": "recomposed_float32",
        "d70885e0": "recomposed",
        "df69dec1": "recomposed",
        "258e8274": "mrope",
        "144b31f1": "mrope_float32",
        "00363935": "mrope_per_layer",
        "9b6aee7f": "xdrope",
        "292038f1": "complex",
        "1ae337e2": "dinov3",
        "006beaf9": "narrow_tables",
        "df5f256c": "narrow_tables_per_layer",
        "5d961893": "clvp_angles",
        "79d2d86f": "efficientloftr",
        "908b20e7": "stored_complex",
        "40387669": "half_tables_learned_alpha",
        "42d637c2": "row_col_per_layer",
        "3c87cd98": "half_tables_phimoe",
    },
    "apply": {
        "468c7f34": "whole_hidden_states",
        "13442f98": "pairs_matrix",
        "1b21e44f": "whole_float32_keys_in_groups",
        "2ffc3a84": "first_channels_float64",
        "64ccd2a9": "whole_float32_keys_repeated",
        "d7bb227c": "whole",
        "62af198f": "whole",
        "77eea4c6": "whole_cast_back",
        "be9778f3": "whole_float32",
        "a3b48771": "whole_float32",
        "f0fe9947": "whole_float32",
        "fcd105b0": "whole_float32",
        "acec1a49": "whole_float32",
        "8695fdfd": "whole_float32",
        "0bdacd45": "whole_float32",
        "5b52c0dc": "first_channels",
        "dc88f238": "first_channels",
        "f26858f0": "first_channels",
        "b73f52bd": "first_channels",
        "e2b2a361": "first_channels",
        "91c7609a": "first_channels",
        "74e30a89": "first_channels",
        "5af815f3": "deinterleave_then_half",
        "e2141dd1": "deinterleave_then_half",
        "d8916d05": "first_channels_tables_to_pairs",
        "f7d702aa": "whole_tables_to_pairs",
        "a731554a": "whole_tables_to_pairs_float32",
        "ba15b378": "prefix_skipped",
        "72775e3b": "narrow_tables",
        "fa3d2720": "whole_and_values",
        "5f5fc4e9": "narrow_tables_to_pairs",
        "3c585dc0": "complex",
        "41498a49": "complex",
        "c242b385": "complex",
        "124f5aa2": "last_channels_tables_to_pairs_float32",
        "ef7f6c72": "axis_blocks",
        "f426b6d4": "whole_queries_last_rows",
        "9f3a9547": "pairs_sin_cos_halves_and_values",
        "14e58f2f": "axis_blocks_vjepa2",
    },
    "rotate": {
        "c2fc1732": "pairs",
        "b59dbfff": "half",
        "eb271da2": "pairs",
        "14c9ebd6": "pairs",
        "9e9ac129": "pairs",
        "36f111d4": "pairs",
        "ef397d4d": "pairs",
        "50c10520": "half_negated",
        "1e7ecd75": "pairs_tables_tiled",
        "1d2cfaf3": "half_narrow_tables",
        "e1bd7cb0": "pairs_narrow_tables",
    },
}
WHAT = {
    "default": {
        "full_theta_attribute": "as full, theta from the attribute rope_theta of the configuration",
        "full": "theta^(-2i/d) over the whole head width d; partial_rotary_factor is ignored",
        "full_per_layer": "as full, with the theta of each layer type; partial_rotary_factor is ignored",
        "partial": "theta^(-2i/r) over r = int(d * partial_rotary_factor) channels (factor 1 when absent)",
        "partial_per_layer": "as partial, with the theta and the factor of each layer type",
        "partial_per_layer_default_0.334": "as partial_per_layer, but an absent factor counts as 0.334",
        "dinov3": "theta^(-4i/d), d/4 frequencies, d always hidden_size / heads; partial_rotary_factor is ignored",
        "full_ernie_permuted": "as full; all but the last sections[2] frequencies reordered: even, then odd ones",
    },
    "axial": {
        "half_of_memory_head": "as half_head, d = memory attention width / (its downsampling * its heads)",
        "half_head": "theta^(-2i/s) with s = d // 2 for each of two axes, d = head_dim or hidden_size / heads",
        "half_head_of_embed_dim": "as half_head, with d = head_dim or embed_dim / heads",
        "third_of_head": "theta^(-2i/s) with s = 2 * (d // 3 // 2) for each of three axes",
        "even_then_odd": "theta^(-2i/d) over the whole head, stored as the even entries, then the odd ones",
    },
    "init": {
        "lightglue": "learned linear map from two coordinates to d/2 angles, no bias",
        "conformer": "theta^(-2i/d), theta from rotary_embedding_base, d = hidden_size / heads",
        "default_only_stored": "default rule whatever the rope type says; frequencies are stored in checkpoints",
        "scaled_time_angles": "as scaled, plus pair-layout angles of the positions 2 pi p / max_position_embeddings",
        "scaled": "default rule, or any scaled rope type",
        "scaled_mrope": "as scaled; sections from rope_parameters, else mrope_section_default",
        "scaled_per_layer": "one rule per layer type of layer_types; a null entry is a layer without rotation",
        "scaled_per_layer_own_config": "as scaled_per_layer, each layer type reading its own view of the configuration",
        "scaled_per_layer_mrope": "as scaled_per_layer, with sections per layer type",
        "scaled_per_label": "one rule per nested entry of rope_parameters, whatever layer_types says",
        "scaled_per_declared_label": "one rule per declared label that also occurs in layer_types",
        "scaled_or_ntk_alpha": "as scaled; dynamic with a truthy alpha: theta * alpha^(d/(d-2)) over head_dim",
        "scaled_or_ntk_alpha_mrope": "as scaled_or_ntk_alpha; sections from rope_parameters, no default",
        "scaled_learned_alpha": "as scaled, with a stored vector alpha (zeros at start), one entry per frequency",
        "scaled_or_forced_default": "as scaled, or the default rule for modules built as unscaled",
        "scaled_in_forward": "as scaled, but the rule is evaluated again on every call",
        "axial_only": "axial rule; any other rope type is an error",
        "default_only": "default rule; any other rope type is an error",
        "default_only_mrope": "default rule with sections; any other rope type is an error",
        "clvp": "10000^(-2i/r), r = max(projection_dim // (2 * heads), 32); stored in checkpoints",
        "dinov3": "theta^(-4i/d), d/4 frequencies, theta from the attribute rope_theta, d = hidden_size / heads",
        "llama4_vision": "complex table of an image grid: coordinates from 1, x then y turning alternate pairs, "
        "class token last at angle 0",
    },
    "recompose": {
        "hw_twice": "[h | w], then again: half layout",
        "mrope_interleaved": "slots 3k+1 height, 3k+2 width while sections last, else time; then again: half layout",
        "mrope_sections": "consecutive sections t, h, w of the frequencies; then again: half layout",
        "mrope_sections_pairs": "consecutive sections t, h, w of the frequencies; each entry doubled: pair layout",
        "ernie_hw_then_t_pairs": "height and width alternate (sections 0, 1), then time; each doubled: pair layout",
        "h_twice_w_twice": "[h | h | w | w]: half layout inside each axis block",
        "xdrope_sections": "half layout first; sections of doubled size cut its full width, one axis each in turn",
        "wh_pairs": "[w | h], each entry doubled: pair layout",
        "wh_alternating_twice": "w0 h0 w1 h1 ..., then again: half layout",
        "thw_twice": "axes one after the other, then again: half layout",
        "row_col_alternating_twice": "even frequencies take the row, odd ones the column; then again: half layout",
        "h_low_w_high_twice": "first half of the stored frequencies takes h, second half w; then again: half layout",
        "hw_pairs": "[h | w], each entry doubled: pair layout",
        "wh_twice": "[w | h], then again: half layout",
    },
    "forward": {
        "lightglue": "angles of the learned map, each doubled: pair layout",
        "conformer": "half layout from position 0; tables in the input dtype",
        "musicflamingo_time": "[window angles | position angles] in pair layout, times -2 pi timestamp; float32 tables",
        "half_tables": "float32 angles, frequencies twice (half layout), full rotary width; tables in the input dtype",
        "half_tables_float32": "as half_tables, tables stay float32",
        "half_tables_per_layer": "as half_tables, one table per layer type",
        "half_tables_per_layer_float32": "as half_tables_per_layer, tables stay float32",
        "pair_tables": "float32 angles, each frequency doubled (pair layout); tables in the input dtype",
        "recomposed": "cos and sin per axis of (tokens, axes) positions, then recomposed; tables in the input dtype",
        "recomposed_float32": "as recomposed, tables stay float32",
        "mrope": "cos and sin of three position rows, then recomposed; tables in the input dtype",
        "mrope_float32": "as mrope, tables stay float32",
        "mrope_per_layer": "as mrope, one table per layer type",
        "xdrope": "cos and sin of one position row per section, then recomposed; tables in the input dtype",
        "complex": "exp(i angle) times the attention factor, one complex64 entry per frequency",
        "dinov3": "angle 2 pi c f, c the patch centre in [-1, 1], [h | w] then again; tables in the input dtype",
        "narrow_tables": "one entry per frequency (half the rotary width); tables in the input dtype",
        "narrow_tables_per_layer": "as narrow_tables, one table per layer type",
        "clvp_angles": "returns the angles themselves, frequencies twice (half layout), positions from 0",
        "efficientloftr": "grid from 1: even entries row times f, odd ones column times f, each doubled: pair layout; "
        "tables in the input dtype",
        "stored_complex": "returns the stored complex table",
        "half_tables_learned_alpha": "as half_tables with frequencies times exp(alpha), alpha from the checkpoint",
        "row_col_per_layer": "two position rows (row, column), recomposed, one table per layer type; input dtype",
        "half_tables_phimoe": "as half_tables; scaled types multiply by short_mscale or long_mscale chosen by length",
        "gptj_sin_then_cos": "10000^(-2i/r), one table row per position: r/2 sines, then r/2 cosines",
        "roformer_sin_then_cos": "float64 10000^(-2i/d), rounded to the table dtype: d/2 sines, then d/2 cosines",
    },
    "apply": {
        "whole_hidden_states": "as whole with halves, on the hidden states before the query and key projections",
        "pairs_matrix": "pairs (2i, 2i+1) times the 2 x 2 rotation of table entry i (first half of half tables)",
        "whole_float32_keys_in_groups": "queries as whole_float32; of each group of keys the last, spatial ones turn",
        "first_channels_float64": "as first_channels, computed in float64 and cast back",
        "whole_float32_keys_repeated": "as whole_float32; key tables repeat, the excluded tail of the keys passes",
        "whole": "x cos + rotate(x) sin on every channel, in the dtype of the product",
        "whole_cast_back": "as whole; the product promotes with the tables and is cast back to the input dtype",
        "whole_float32": "as whole, computed in float32 and cast back to the input dtype",
        "whole_queries_last_rows": "as whole; queries take the last rows of the tables",
        "whole_and_values": "as whole, applied to values as well",
        "first_channels": "the first table-width channels turn, the rest pass",
        "first_channels_tables_to_pairs": "half tables redone as pair tables; the first table-width channels turn",
        "whole_tables_to_pairs": "half tables redone as pair tables; every channel turns",
        "whole_tables_to_pairs_float32": "as whole_tables_to_pairs, computed in float32 and cast back",
        "last_channels_tables_to_pairs_float32": "narrow tables doubled to pairs; the last channels turn, in float32",
        "narrow_tables": "tables of half the rotary width, used on both members of a pair (see rotate)",
        "narrow_tables_to_pairs": "narrow tables (sine first) doubled to pairs; every channel it is given turns",
        "deinterleave_then_half": "pairs (2i, 2i+1) turn by table entry i; results come out as firsts, then seconds",
        "complex": "pairs (2i, 2i+1) as complex numbers times the complex table, in float32, cast back",
        "prefix_skipped": "the last table-length tokens turn as in whole, the tokens before them pass",
        "axis_blocks": "one block of channels per axis, each turned as in whole with its block of the tables",
        "axis_blocks_vjepa2": "blocks for frame, row and column, each turned by its position; the rest pass",
        "pairs_sin_cos_halves_and_values": "table [sines | cosines] doubled to pairs; turns values too when asked",
    },
    "rotate": {
        "half": "(x1, x2) halves -> (-x2, x1): pair (i, i + r/2)",
        "half_negated": "(x1, x2) halves -> (x2, -x1): the half rotation by the negated angle",
        "pairs": "(x0, x1) neighbours -> (-x1, x0): pair (2i, 2i+1)",
        "pairs_tables_tiled": "neighbours -> (-x1, x0) with 10000^(-2i/b) tables tiled, not doubled: entry c mod b/2",
        "half_narrow_tables": "pair (i, i + r/2) turned by table entry i",
        "pairs_narrow_tables": "pair (2i, 2i+1) turned by table entry i",
    },
}


class Module:
    """The definitions and imports of one modeling file, by name."""

    def __init__(self, path):
        self.path = path
        self.name = ".".join(path.relative_to(models_folder()).with_suffix("").parts)
        self.source = path.read_text()
        self.tree = ast.parse(self.source)
        self.definitions, self.imports = {}, {}
        for node in self.tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.definitions[node.targets[0].id] = node
            elif isinstance(node, ast.ImportFrom) and node.level and node.module:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (node.level, node.module, alias.name)

    def find(self, name):
        """(module, definition) of a name, followed through imports of other modeling files; None for anything else."""
        if name in self.definitions:
            return self, self.definitions[name]
        if name in self.imports:
            level, dotted, original = self.imports[name]
            folder = self.path
            for _ in range(level):
                folder = folder.parent
            path = folder.joinpath(*dotted.split(".")).with_suffix(".py")
            if path.name.startswith("modeling_") and models_folder() in path.parents and path.exists():
                return read_module(path).find(original)
        return None


@functools.cache
def models_folder():
    import transformers

    return pathlib.Path(transformers.__file__).parent / "models"


@functools.cache
def read_module(path):
    return Module(path)


class Strip(ast.NodeTransformer):
    """Removes what does not change a body's arithmetic: docstrings, annotations, decorators, its own name."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.decorator_list, node.returns, node.name = [], None, "f"
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        return ast.Assign(targets=[node.target], value=node.value) if node.value else None


def digest(node):
    """Eight hexadecimal digits that are equal for functions with the same normalised text."""
    stripped = Strip().visit(ast.parse(ast.unparse(node)))
    text = ast.unparse(ast.fix_missing_locations(stripped))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def methods(node):
    return {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}


def method(module, node, name):
    """A method of a class or of its bases, as (module, class, function)."""
    own = methods(node)
    if name in own:
        return module, node, own[name]
    for base in node.bases:
        found = module.find(base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            inherited = method(*found, name)
            if inherited:
                return inherited
    return None


def used_names(node):
    """Names that running a definition can touch: no annotations, no decorators, no initialisers of weights."""
    names = []

    def visit(item):
        if isinstance(item, ast.FunctionDef):
            if item.name in SKIPPED_METHODS:
                return
            for part in [*item.args.defaults, *[d for d in item.args.kw_defaults if d], *item.body]:
                visit(part)
        elif isinstance(item, ast.ClassDef):
            for part in [*item.bases, *[p for p in item.body if not isinstance(p, (ast.Assign, ast.AnnAssign))]]:
                visit(part)
        elif isinstance(item, ast.AnnAssign):
            if item.value:
                visit(item.value)
        else:
            if isinstance(item, ast.Name):
                names.append(item.id)
            for child in ast.iter_child_nodes(item):
                visit(child)

    visit(node)
    return dict.fromkeys(names)


def reachable(roots):
    """Definitions that the root classes use, in order of first use, as (module, node)."""
    seen, queue = {}, list(roots)
    while queue:
        module, node = queue.pop(0)
        if (module.name, id(node)) in seen:
            continue
        seen[module.name, id(node)] = (module, node)
        queue.extend(found for name in used_names(node) if (found := module.find(name)))
    return [(module, node) for module, node in seen.values() if not isinstance(node, ast.Assign)]


def annotated_with(node, name):
    """Whether a class takes a configuration of the named class."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            target, holder = item.target, item.annotation
        elif isinstance(item, ast.Assign):
            target, holder = item.targets[0], item.value
        else:
            continue
        names = {n.id for n in ast.walk(holder) if isinstance(n, ast.Name)}
        if isinstance(target, ast.Name) and target.id in ("config", "config_class") and name in names:
            return True
    init = methods(node).get("__init__")
    arguments = init.args.args if init else []
    return any(
        isinstance(n, ast.Name) and n.id == name
        for argument in arguments
        if argument.annotation
        for n in ast.walk(argument.annotation)
    )


def model_roots(config_class):
    """The classes that run a configuration, as (module, class): those mapped to it and those annotated with it."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    folder = models_folder().joinpath(*config_class.__module__.split(".")[2:-1])
    modules = [read_module(path) for path in sorted(folder.glob("modeling_*.py"))]
    mapped = MODEL_MAPPING_NAMES.get(config_class.model_type, ())
    mapped = (mapped,) if isinstance(mapped, str) else mapped
    roots = [(m, m.definitions[name]) for name in mapped for m in modules if name in m.definitions]
    if mapped and not roots:  # a configuration of its own that another family's classes run
        import transformers

        dotted = getattr(transformers, mapped[0]).__module__.split(".")[2:]
        m = read_module(models_folder().joinpath(*dotted).with_suffix(".py"))
        roots = [(m, m.definitions[mapped[0]])]
    if not roots:
        takers = [
            (m, node)
            for m in modules
            for node in m.definitions.values()
            if isinstance(node, ast.ClassDef) and annotated_with(node, config_class.__name__)
        ]
        # a tower that only its attention names is read with everything in its file that uses that attention
        only_attention = takers and all("Attention" in node.name for _, node in takers)
        roots = all_classes(config_class) if only_attention else takers
    return roots


def is_rotary(module, node):
    """Whether a class makes rotary angles, cosines or sines."""
    own = methods(node)
    if METHODS["default"] in own or METHODS["axial"] in own:
        return True
    if "Attention" in node.name or not ROTARY_CLASS.search(node.name):
        return False
    return bool(re.search(r"freq|angle|\bcos\b|\bsin\b|theta", ast.get_source_segment(module.source, node)))


def all_classes(config_class):
    folder = models_folder().joinpath(*config_class.__module__.split(".")[2:-1])
    modules = [read_module(path) for path in sorted(folder.glob("modeling_*.py"))]
    return [(m, node) for m in modules for node in m.definitions.values() if isinstance(node, ast.ClassDef)]


class Parts:
    """What the model classes of a configuration use: rotary classes, and functions by kind in order of first use."""

    def __init__(self, config_class):
        self.functions = {kind: {} for kind in KINDS}
        self.classes = []
        self.nodes = reachable(model_roots(config_class))
        names = {
            name for _, node in self.nodes for name in [node.name, *(methods(node) if hasattr(node, "bases") else ())]
        }
        fields = getattr(config_class, "__dataclass_fields__", ())
        if "rope_parameters" in fields and not any(APPLY.search(name) for name in names):
            self.nodes = reachable(model_roots(config_class) + all_classes(config_class))
        for module, node in self.nodes:
            if isinstance(node, ast.FunctionDef):
                self.sort_function(module, None, node)
            else:
                for function in methods(node).values():
                    self.sort_function(module, node, function)
                if is_rotary(module, node):
                    self.classes.append((module, node))
        own = [(module, node) for module, node in self.classes if annotated_with(node, config_class.__name__)]
        self.classes = own or self.classes
        for module, node in self.classes:
            for kind, name in METHODS.items():
                there = method(module, node, name)
                if there:
                    self.add(kind, *there)
        if not self.classes:
            for module, node in self.nodes:
                if ANGLES.search(node.name):
                    table = methods(node).get("create_weight") if isinstance(node, ast.ClassDef) else node
                    if table:
                        self.add("forward", module, node if table is not node else None, table)
        applied = self.functions["apply"]
        called = {name for _, function in applied.values() for name in used_names(function)}
        self.functions["apply"] = {w: mf for w, mf in applied.items() if mf[1].name not in called} or applied

    def sort_function(self, module, owner, function):
        if ROTATE.search(function.name):
            self.add("rotate", module, owner, function)
        elif APPLY.search(function.name):
            self.add("apply", module, owner, function)

    def add(self, kind, module, owner, function):
        where = ".".join([module.name, *([owner.name] if owner else []), function.name])
        self.functions[kind].setdefault(where, (module, function))

    def plain_rotations(self):
        """Rotations that are handed no positions: they make no tables of their own."""
        rotations = self.functions["rotate"].items()
        return {where for where, (_, function) in rotations if len(function.args.args) == 1}

    def labels(self, kind):
        return list(dict.fromkeys(label(kind, function) for _, function in self.functions[kind].values()))


def label(kind, function):
    number = digest(function)
    return LABELS[kind].get(number, f"unknown:{number}")


def modeling(config_class, parts):
    """The labels of what the model classes of a configuration use."""
    labels = {kind: parts.labels(kind) for kind in KINDS}
    facts = {"module": next((module.name for module, _ in parts.classes or parts.nodes), None)}
    facts["rotary_class"] = parts.classes[0][1].name if parts.classes else None
    for kind in KINDS:
        facts[kind] = labels[kind][0] if labels[kind] else None
        if len(labels[kind]) > 1:
            facts[f"{kind}_others"] = labels[kind][1:]
    if len(parts.classes) > 1:
        facts["rotary_class_others"] = [node.name for _, node in parts.classes[1:]]
    if len(labels["apply"]) > 1:
        names = {function.name for _, function in parts.functions["apply"].values()}
        facts["apply_users"] = {
            node.name: [name for name in used_names(node) if name in names]
            for _, node in parts.nodes
            if isinstance(node, ast.ClassDef) and names & set(used_names(node))
        }
        text = "".join(ast.unparse(node) for _, node in parts.nodes)
        facts["apply_switch"] = "rope_interleave" if "config.rope_interleave" in text else None
    facts["table_dtype"] = None
    if parts.classes:
        forward = "".join(ast.unparse(function) for _, function in parts.functions["forward"].values())
        facts["table_dtype"] = (
            "input"
            if re.search(r"\b(x|hidden_states)\.dtype|dtype=dtype|type_as\(hidden_states\)", forward)
            else "float32"
        )
    text = "".join(ast.unparse(function) for _, function in parts.functions["init"].values())
    sections = re.search(r"get\('mrope_section', (\[[^\]]*\])\)", text)
    if sections or facts["default"] == "full_ernie_permuted":
        facts["mrope_section_default"] = json.loads(sections.group(1)) if sections else None
    return facts


def ignores_partial_rotary_factor(parts):
    functions = [function for _, function in parts.functions["default"].values()]
    if not functions:
        return None
    return not any("partial_rotary_factor" in ast.unparse(function) for function in functions)


def plain(value):
    """A value that JSON can hold, or None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def runs(values):
    return [[value, len(list(group))] for value, group in itertools.groupby(values)]


def config_facts(config_class):
    """(values, error): what the default configuration says; from the class alone if it does not build."""
    values, error = {}, None
    try:
        config = config_class()
    except Exception as problem:  # whatever a release's validation raises is a fact to write down
        error, config = " ".join(str(problem).split())[:200] or type(problem).__name__, config_class
    for key in CONFIG_KEYS:
        try:
            value = plain(getattr(config, key, None))
        except Exception:  # it differs from layer to layer; the file has the one of most
            value = plain(config.to_dict().get(key))
        if value is None or value == {}:
            continue
        if key == "attribute_map":
            value = {name: to for name, to in value.items() if {name, to} & {*CONFIG_KEYS, "layer_types"}}
            if not value:
                continue
        if isinstance(value, list) and len(value) > 2 and key == "no_rope_layers":
            key, value = f"{key}_runs", runs(value)
        values[key] = value
    return values, error


def position_keys(config_class):
    """(fields, legacy names): what the class declares, and what its hooks read from unknown keyword arguments."""
    names = [field.name for field in dataclasses.fields(config_class)] if dataclasses.is_dataclass(config_class) else []
    names += list(inspect.signature(config_class.__init__).parameters)
    fields = sorted({name for name in names if POSITION_KEY.search(name)})
    legacy = set()
    for base in config_class.__mro__:
        if not base.__module__.startswith("transformers.models."):
            continue
        for node in ast.walk(ast.parse(inspect.getsource(base))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            owner, first = node.func.value, node.args[0]
            reads = node.func.attr in ("pop", "get", "setdefault") and isinstance(owner, ast.Name)
            if reads and owner.id == "kwargs" and isinstance(first, ast.Constant):
                legacy |= {first.value} if POSITION_KEY.search(str(first.value)) else set()
    return fields, sorted(legacy)


def follows_hidden_size(config_class):
    """Whether the head dim, when not given, is hidden_size over the number of heads."""
    found = []
    for key in ("hidden_size", "num_attention_heads"):
        try:
            plain_one = config_class()
            found.append(config_class(**{key: getattr(plain_one, key) * 2}).head_dim != plain_one.head_dim)
        except Exception:
            continue  # its parts may need this size
    return any(found) if found else None


DERIVED = {
    "head_dim": "qk_nope_head_dim + qk_rope_head_dim",
    "partial_rotary_factor": "qk_rope_head_dim / (qk_nope_head_dim + qk_rope_head_dim)",
    "attention_multiplier": "head_dim ** -0.5",
    "query_pre_attn_scalar": "head_dim",
}


def derived(config_class):
    """Settings that the class makes of others where a file does not say them, and how."""
    found = {}
    for key, expression in DERIVED.items():
        sizes = re.findall(r"[a-z_]{2,}", expression)
        wanted = [{size: 32 * (i + j) for i, size in enumerate(sizes, 1)} for j in (1, 2)]
        try:
            configs = [config_class(**file) for file in wanted]
            made = [getattr(config, key, None) or config.rope_parameters[key] for config in configs]
        except Exception:
            continue
        if made == [evaluate(f"={expression}", file) for file in wanted]:
            found[key] = f"={expression}"
    try:
        audio = config_class().audio_config
        if config_class(audio_config={"hidden_size": 96, "model_type": audio.model_type}).head_dim == 96:
            found["head_dim"] = f"=get(audio_config, 'hidden_size', get(audio_config, 'd_model', {audio.hidden_size}))"
    except Exception:
        pass
    return found


def computes_head_dim(config_class):
    """Whether the head dim of a file is not the model's: the class makes it of other sizes."""
    if isinstance(getattr(config_class, "head_dim", None), property):
        return True
    try:
        return config_class(head_dim=48).head_dim != 48
    except Exception:
        return False


def labels_of_layers(config_class):
    """Whether there is a rotary dict for each type of layer_types, whichever these are."""
    try:
        default = set(entries(config_class()))
        kinds = ["sliding_attention", "full_attention"]
        config = config_class(num_hidden_layers=2, layer_types=kinds)
        return "" not in default and default != set(kinds) and set(entries(config)) == set(kinds)
    except Exception:
        return False


def layer_head_dims(config_class):
    """Layer type -> head dim, where some layers have their own."""
    try:
        config = config_class()
        own = config.to_dict().get("per_layer_config") or {}
        return {
            config.layer_types[int(index)]: layer["head_dim"] for index, layer in own.items() if "head_dim" in layer
        }
    except Exception:
        return {}


WIDTH = re.compile(r"^(self|config)\.(head_dim|head_size|attention_head_size|hidden_size_per_attention_head)$")


def attention_computes_head_dim(parts):
    """Whether the classes that turn queries make the width of a head of other sizes, whatever head_dim says."""
    names, found = {function.name for _, function in parts.functions["apply"].values()}, []
    for module, node in parts.nodes:
        if not isinstance(node, ast.ClassDef) or not names & set(used_names(node)):
            continue
        there = method(module, node, "__init__")
        for statement in ast.walk(there[2]) if there else ():
            if isinstance(statement, ast.Assign) and WIDTH.match(ast.unparse(statement.targets[0])):
                found.append(not re.search("head_dim|kv_channels", ast.unparse(statement.value)))
    return bool(found) and all(found)


SCALING_NAMES = ("scaling", "softmax_scale", "scale", "inv_norm_factor", "scale_attn", "norm_factor")
SOFTMAX_SCALES = {
    "self.head_dim ** (-0.5)": "head_dim",
    "self.attention_head_size ** (-0.5)": "head_dim",
    "self.head_size ** (-0.5)": "head_dim",
    "math.sqrt(self.head_dim)": "head_dim",  # by which logits are divided
    "math.sqrt(self.head_size)": "head_dim",
    "config.head_dim ** (-0.25)": "head_dim",  # queries, and keys
    "(self.head_dim / 2) ** (-0.5)": "half_head_dim",
    "1 / math.sqrt(self.head_dim)": "head_dim",
    "1.0 / math.sqrt(self.head_dim)": "head_dim",
    "1 / math.sqrt(config.head_dim)": "head_dim",
    "self.qk_head_dim ** (-0.5)": "qk_head_dim",
    "yarn_apply_mscale(config.rope_parameters, self.qk_head_dim ** (-0.5))": "qk_head_dim_yarn",
    "config.query_pre_attn_scalar ** (-0.5)": "query_pre_attn_scalar",
    "config.attention_multiplier": "attention_multiplier",
    "1.0": "one",
    "1": "one",
}


# In the call itself; or not even there: what an attention function then takes is the same.
UNNAMED_SCALE = re.compile(
    r"/ math\.sqrt\(self\.attention_head_size\)|scaling=self\.head_dim \*\* \(?-0\.5\)?|"
    r"attention_interface\(self, query, key, value, attention_mask=\w+, is_causal=False\)"
)


SCALED_QUERY = re.compile(r"query_layer \* self\.attention_head_size \*\* \(?-0\.5")  # ESM, before it rotates


def softmax_scale(parts):
    """How the attention classes that rotate scale their logits: labels of SOFTMAX_SCALES, or the code itself."""
    names = {function.name for _, function in parts.functions["apply"].values()}
    found = []
    for module, node in parts.nodes:
        if not isinstance(node, ast.ClassDef) or not (names & set(used_names(node)) or "Attention" in node.name):
            continue
        there = method(module, node, "__init__")
        for statement in ast.walk(there[2]) if there else ():
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Attribute):
                continue
            if statement.targets[0].attr in SCALING_NAMES:
                text = ast.unparse(statement.value)
                found.append((bool(names & set(used_names(node))), SOFTMAX_SCALES.get(text, text)))
    rotating = [text for rotates, text in found if rotates] or [text for _, text in found]
    if rotating == ["one"] and any(SCALED_QUERY.search(ast.unparse(node)) for _, node in parts.nodes):
        return ["head_dim"]
    if not rotating and any(UNNAMED_SCALE.search(ast.unparse(node)) for _, node in parts.nodes):
        return ["head_dim"]
    return list(dict.fromkeys(rotating))


TEMPERATURES = {"get_llama_4_attn_scale": "llama_4_scaling_beta", "attn_temperature_tuning": "floor_scale"}


def temperature(parts):
    """By what setting queries grow with their position; None where they do not."""
    text = "".join(ast.unparse(node) for _, node in parts.nodes)
    return next((setting for name, setting in TEMPERATURES.items() if name in text), None)


def layer_bases(parts):
    """What layer_rope_theta does: "own", each layer turns with its base; "on_off", with that of all, or not at all."""
    text = "".join(ast.unparse(node) for _, node in parts.nodes)
    if "layer_rope_theta" not in text:
        return None
    return "own" if "for theta in config.layer_rope_theta" in text else "on_off"


SWITCHES = {
    "if config.use_rotary_embedding else None": ("use_rotary_embedding", True),
    "if self.config.use_mem_rope:": ("use_mem_rope", True),
    "if config.position_embedding_type == 'rope' else None": ("position_embedding_type", "rope"),
}
ROTATING_LAYERS = {
    "self.is_local_attention": "sliding",
    "self.sliding_window is not None": "windowed",
    "self.sliding_window is not None or self.force_rope": "windowed_or_dense",
    "self.sliding_window is None or self.is_sliding": "sliding_if_windowed",
}


def switch(parts):
    """The setting, and its value, with which the model rotates at all."""
    text = "".join(ast.unparse(node) for _, node in parts.nodes)
    return next((found for code, found in SWITCHES.items() if code in text), None)


def rotating_layers(parts):
    """Under which condition, of ROTATING_LAYERS, attention of a layer rotates; None where it always does."""
    names = {function.name for _, function in parts.functions["apply"].values()}
    for _, node in parts.nodes:
        for statement in ast.walk(node):
            condition = ast.unparse(statement.test) if isinstance(statement, ast.If) else None
            if condition in ROTATING_LAYERS and names & set(used_names(statement)):
                return ROTATING_LAYERS[condition]
    return None


def type_facts(config_class, parts):
    values, error = config_facts(config_class)
    fields, legacy = position_keys(config_class)
    facts = {
        "config": values,
        "default_theta": plain(getattr(config_class, "default_theta", None)),
        "ignores_partial_rotary_factor": ignores_partial_rotary_factor(parts),
        "keys": fields,
        "modeling": modeling(config_class, parts),
    }
    if getattr(config_class, "default_rope_type", "default") != "default":
        facts["default_rope_type"] = config_class.default_rope_type
    if legacy:
        facts["legacy_keys"] = legacy
    if "rope_parameters" in {*fields, *values}:
        facts["reached"] = reached(config_class)
        if Model(given={}, known=facts, values={}, follow=False).has_dicts_by_layer and keeps_null_entries(
            config_class
        ):
            facts["keeps_null_entries"] = True
        if lost := older_type_is_lost(config_class, facts["reached"]):
            facts["older_type_is_lost"] = lost
        facts["sources"] = sources(config_class, {*fields, *legacy})
    facts["head_dim_follows_hidden_size"] = follows_hidden_size(config_class)
    facts["softmax_scale"] = softmax_scale(parts)
    if dims := layer_head_dims(config_class):
        facts["layer_head_dims"] = dims
    if setting := temperature(parts):
        facts["temperature"] = setting
    if computes_head_dim(config_class):
        facts["head_dim_is_computed"] = True
    if attention_computes_head_dim(parts):
        facts["attention_computes_head_dim"] = True
    if found := derived(config_class):
        facts["derived"] = found
    if labels_of_layers(config_class):
        facts["labels_of_layers"] = True
    if kind := layer_bases(parts):
        facts["layer_bases"] = kind
    if found := switch(parts):
        facts["switch"] = found
    facts["layer_types"] = layer_types(config_class, parts)
    if config_class.model_type in ROTATES:
        facts["rotates"] = ROTATES[config_class.model_type]
    if found := rotating_layers(parts):
        facts["rotating_layers"] = found
    if any("get('rope_theta') is not None" in ast.unparse(node) for _, node in parts.nodes):
        facts["null_theta_is_none"] = True
    if error:
        facts["config_error"] = error
    return facts


def sub_types(config_class):
    """Attribute names of a composite's parts -> their model types in the default configuration."""
    try:
        config = config_class()
    except Exception:
        config = None
    types = {}
    for name, part in getattr(config_class, "sub_configs", {}).items():
        built = getattr(getattr(config, name, None), "model_type", None)
        types[name] = built or getattr(part, "model_type", None) or None
    return types


def numbering(config_class):
    """How it numbers several modalities, or the part of it that does."""
    if rule := index_rule(config_class):
        return {"numbering": rule}
    parts = [
        name
        for name, part in getattr(config_class, "sub_configs", {}).items()
        if part is not config_class and index_rule(part)
    ]
    return {"numbering_part": parts[0]} if parts else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, nargs="?", help="file to write")
    parser.add_argument("--bodies", action="store_true", help="print every body that has no label")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    leaves, composites, bodies, unknown = {}, {}, {}, {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        config_class = CONFIG_MAPPING[model_type]
        parts = Parts(config_class)
        applies = parts.functions["apply"] and (
            parts.classes or parts.functions["forward"] or parts.functions["rotate"].keys() - parts.plain_rotations()
        )
        if getattr(config_class, "sub_configs", None):
            composites[model_type] = {"sub_configs": sub_types(config_class)} | numbering(config_class)
            error = config_facts(config_class)[1]
            if error:
                composites[model_type]["config_error"] = error
            if not (applies and any(annotated_with(node, config_class.__name__) for _, node in parts.classes)):
                continue
            composites[model_type].update(type_facts(config_class, parts))
        elif applies:
            leaves[model_type] = type_facts(config_class, parts) | numbering(config_class)
        else:
            continue
        for kind in KINDS:
            for where, (_, function) in parts.functions[kind].items():
                name = label(kind, function)
                if name.startswith("unknown:"):
                    unknown.setdefault((kind, name), (where, function))
                entry = {"what": WHAT[kind].get(name), "example": where, "count": 0}
                entry = bodies.setdefault(kind, {}).setdefault(name, entry)
                entry["count"] += 1
    if arguments.bodies:
        for (kind, name), (where, function) in sorted(unknown.items(), key=lambda item: item[0]):
            print(f"# {kind} {name} {where}\n{ast.unparse(function)}\n")
    known = {"modeling", "config_error"}
    rotary = leaves | {name: facts for name, facts in composites.items() if known & set(facts)}
    while True:  # composites count when one of their parts, however deep, turns anything
        more = {
            name: facts
            for name, facts in composites.items()
            if name not in rotary and set(facts["sub_configs"].values()) & set(rotary)
        }
        if not more:
            break
        rotary |= more
    composites = {name: facts for name, facts in composites.items() if name in rotary}
    result = {
        "bodies": bodies,
        "composites": composites,
        "transformers_version": transformers.__version__,
        "types": leaves,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, sort_keys=True, indent=0, separators=(",", ":")) + "\n")
    errors = sum("config_error" in facts for facts in leaves.values())
    print(f"{len(rotary)} types, {len(leaves)} leaves, {errors} configuration errors, {len(unknown)} unknown bodies")


if __name__ == "__main__":
    main()
