"""Writes docs/models.md: what `hf.from_config` makes of each of transformers' model types, and which numbers prove it.

python docs/make_models.py
"""

import json
import pathlib

from posembed_jax import RoPE, hf
from posembed_jax.hf.facts import facts

DOCS = pathlib.Path(__file__).parent
CASES = DOCS.parent / "tests" / "golden" / "cases"
LABELS = ("apply", "axial", "default", "forward", "init", "recompose", "rotate")
ROTARY = ("rope", "mrope", "config_load", "sweep_rope", "vision_grid")
MECHANISMS = {  # kind of positions -> how the names of its golden cases begin
    "learned": ("tower", "abs_learned", "abs_interp2d", "abs_bucket2d", "posid"),
    "axial": ("abs_learned_2d", "abs_axial", "abs_learned"),
    "sinusoidal": ("sin_",),
    "fourier": ("sin_fourier",),
    "t5": ("bias_t5",),
    "t5_axes": ("bias_t5",),
    "alibi": ("bias_alibi",),
    "alibi_bfloat16": ("bias_alibi",),
    "swin": ("bias_window",),
    "swin_v2": ("bias_window",),
    "beit": ("bias_window",),
    "levit": ("bias_window",),
    "convolution": ("conv_pos",),
    "gated_t5": ("bias_t5",),
    "decomposed": ("tower", "bias_decomposed"),
    "tiles": ("tower",),
    "box_rpb": ("bias_box",),
    "clipped": ("bias_clip",),
    "shaw": ("rel_shaw",),
    "shaw_values": ("rel_shaw",),
    "transformer_xl": ("rel_xl",),
    "deberta": ("rel_deberta",),
    "relative_logits": ("bias_learned_logits",),
}


def rotation_in_words(rotation):
    if rotation is None:
        return "no positions"
    if not isinstance(rotation, RoPE):
        return f"{type(rotation).__name__}, learned"
    words = [f"RoPE, {rotation.layout} {rotation.dim}", f"base {rotation.base:g}"]
    words += [type(rotation.scaling).__name__] if rotation.scaling else []
    words += [f"{rotation.position_axes} axes"] if rotation.axes else []
    words += [name for name in ("clockwise", "learned", "fractional") if getattr(rotation, name)]
    words += ["last channels"] if rotation.rotated == "last" else []
    return ", ".join(words)


def in_words(found):
    """The positions of a model, by place; places of one name and a number count as one."""
    words = {layer: rotation_in_words(rotation) for layer, rotation in found.rotations.items()}
    for place, scheme in (*found.additive.items(), *found.biases.items()):
        name = place.rpartition(".")[0] if place.rpartition(".")[2].isdigit() else place
        words.setdefault(name, type(scheme).__name__)
        if name == place and words[name] != type(scheme).__name__:
            words[name] += f" and {type(scheme).__name__}"
    words |= {place: "convolution" for place, about in found.about.items() if "convolution" in about}
    return "; ".join(f"{place}: {text}" if place else text for place, text in words.items())


def leaves(known):
    """Model types that are no composites of others and have positions."""
    others = known["others"]
    parts = {name: types_of_parts(name, known) for name in known["parts"]}
    named = {*known["types"], *others["types"], *others["no_scheme"]}
    named |= {name for name, facts in known["composites"].items() if "modeling" in facts}
    return sorted(name for name in named if not parts.get(name) or name in others["no_scheme"])


def types_of_parts(name, known):
    """The types of the parts that a composite has by default."""
    parts = known["parts"].get(name, {}).values()
    return [part["type"] for part in parts if part["type"] and "optional" not in part]


def codes(name, known):
    """What code a type runs: (its kind, a digest or labels) of every place, and how golden cases of it are called."""
    found = {}
    rotary = known["types"].get(name) or known["composites"].get(name, {})
    if "modeling" in rotary:
        found["rotary", tuple(str(rotary["modeling"][label]) for label in LABELS)] = ROTARY
    for row in known["others"]["types"].get(name, {}).get("places", ()):
        found[row["kind"], row["body"]] = MECHANISMS[row["kind"]]
    return found


def tower_types(name, known):
    """A type, and the types of its parts, however deep."""
    yield name
    for part in known["parts"].get(name, {}).values():
        if part["type"]:
            yield from tower_types(part["type"], known)


def golden(known):
    """(model type, beginning of a case's name) of every committed case."""
    found = set()
    for path in CASES.glob("*.json"):
        mechanism, model = path.stem.split("__")[:2]
        model = json.loads(path.read_text()).get("model_type") or model
        found |= {(name, mechanism) for name in tower_types(model, known)}
    return found


def proofs(known):
    """Leaf -> "golden", "same code as ..." or "", the least of its places."""
    cases = golden(known)
    of_code = {}
    for name in (*known["types"], *known["composites"], *known["others"]["types"]):
        for code, begins in codes(name, known).items():
            if any(model == name and mechanism.startswith(begins) for model, mechanism in cases):
                of_code.setdefault(code, set()).add(name)
    shown = {}
    for name in leaves(known):
        by = [of_code.get(code, set()) for code in codes(name, known)]
        if by and all(name in names for names in by):
            shown[name] = "golden"
        elif by and all(by):
            shown[name] = "same code as " + ", ".join(sorted({min(names) for names in by if name not in names}))
        else:
            shown[name] = ""
    return shown


def resolved(name, known):
    """(whether from_config resolves its default configuration, in words what, or why not)."""
    if name in known["others"]["no_scheme"]:
        return False, known["others"]["no_scheme"][name]
    try:
        found = hf.from_config({"model_type": name})
    except ValueError:
        return False, "transformers itself cannot run its default configuration"
    return True, in_words(found) or "none by default"


def table(known):
    proved = proofs(known)
    rows = {name: (*resolved(name, known), proved[name]) for name in leaves(known)}
    counts = {
        "types": len(rows),
        "resolved": sum(ok for ok, _, _ in rows.values()),
        "golden": sum(ok and proof == "golden" for ok, _, proof in rows.values()),
        "same code": sum(ok and proof.startswith("same") for ok, _, proof in rows.values()),
    }
    return rows, counts


def page():
    known = facts()
    rows, counts = table(known)
    composites = sorted(set(known["parts"]) - set(rows))
    without = known["others"]["without"]
    proved = counts["golden"] + counts["same code"]

    def percent(count):
        return f"{100 * count / len(rows):.1f}"

    lines = [
        "# Models of transformers",
        "",
        f"`hf.from_config` from the default configuration of each of the {counts['types']} model types of transformers "
        f"{known['transformers_version']} that have positions",
        f"and are not made of other types: {counts['resolved']} resolve ({percent(counts['resolved'])} %). "
        f"{proved} of them ({percent(proved)} % of all) are held to transformers' own numbers:",
        f"{counts['golden']} by golden cases of their own, {counts['same code']} because they run the same code as one "
        "that has, after renaming of variables.",
        f"{len(composites)} more types are made of these, and resolve part by part; {len(without)} have no positions "
        "of their own. Written by `python docs/make_models.py`.",
        "",
        "| model type | positions | proved by |",
        "|---|---|---|",
        *(
            f"| `{name}` | {text if ok else 'not supported: ' + text} | {proof} |"
            for name, (ok, text, proof) in rows.items()
        ),
        "",
        "## Made of other types",
        "",
        ", ".join(f"`{name}`" for name in composites) + ".",
        "",
        "## Without positions of their own",
        "",
        ", ".join(f"`{name}`" for name in without) + ".",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (DOCS / "models.md").write_text(page())
