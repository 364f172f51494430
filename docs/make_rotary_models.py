"""Writes docs/rotary_models.md: how `hf.from_config` resolves each of transformers' rotary model types.

python docs/make_rotary_models.py
"""

import json
import pathlib

from posembed_jax import RoPE, hf
from posembed_jax.hf.facts import facts

DOCS = pathlib.Path(__file__).parent
CASES = DOCS.parent / "tests" / "golden" / "cases"
LABELS = ("apply", "axial", "default", "forward", "init", "recompose", "rotate")


def how(rotation):
    """A rotation in a few words."""
    if rotation is None:
        return "no positions"
    if not isinstance(rotation, RoPE):
        return f"{type(rotation).__name__}, learned"
    words = [f"{rotation.layout} {rotation.dim}", f"base {rotation.base:g}"]
    words += [type(rotation.scaling).__name__] if rotation.scaling else []
    words += [f"{rotation.position_axes} axes"] if rotation.axes else []
    words += [name for name in ("clockwise", "learned", "fractional") if getattr(rotation, name)]
    words += ["last channels"] if rotation.rotated == "last" else []
    return ", ".join(words)


def resolve(model_type):
    try:
        found = hf.from_config({"model_type": model_type})
    except ValueError:
        return None
    return "; ".join((f"{layer}: " if layer else "") + how(rotation) for layer, rotation in found.rotations.items())


def page():
    types = facts()["types"]
    pinned = {json.loads(path.read_text()).get("model_type") for path in CASES.glob("*rope*.json")}
    pinned |= {json.loads(path.read_text()).get("model_type") for path in CASES.glob("config_load*.json")}
    code = {name: tuple(str(known["modeling"][label]) for label in LABELS) for name, known in types.items()}
    of_code = {code[name]: name for name in sorted(types, reverse=True) if name in pinned}
    rows, counts = [], {"golden": 0, "same code": 0, "": 0, "unresolved": 0}
    for name in sorted(types):
        found = resolve(name)
        other = of_code.get(code[name])
        case = "golden" if name in pinned else "same code" if other else ""
        counts["unresolved" if found is None else case] += 1
        shown = f"same code as {other}" if case == "same code" else case
        rows.append(f"| `{name}` | {found or 'transformers itself cannot run its default configuration'} | {shown} |")
    resolved = len(types) - counts["unresolved"]
    return "\n".join(
        [
            "# Rotary models of transformers",
            "",
            f"`hf.from_config` from the default configuration of each of the {len(types)} model types of transformers "
            f"{facts()['transformers_version']} with",
            f"rotary positions that are no composites: {resolved} resolve ({100 * resolved / len(types):.1f} %). "
            f"{counts['golden']} have a golden case, {counts['same code']} run the same",
            f"code as one that has, {counts['']} have neither. Written by `python docs/make_rotary_models.py`.",
            "",
            "| model type | rotation | proved by |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    (DOCS / "rotary_models.md").write_text(page())
