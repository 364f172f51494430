"""The token and position arrays of a transformers checkpoint, at the places that `from_config` finds."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import jax
import numpy as np

from posembed_jax.hf.config import from_config
from posembed_jax.hf.found import Positions
from posembed_jax.hf.weights import Stored, names, read, same
from posembed_jax.scheme import Scheme
from posembed_jax.schemes.distance import ClippedBias, T5Bias
from posembed_jax.schemes.image_tiles import TilePositions
from posembed_jax.schemes.relative_logits import RelativeLogits
from posembed_jax.schemes.shaw import ShawBias
from posembed_jax.schemes.transformer_xl import TransformerXLBias
from posembed_jax.schemes.windows import BEiTBias, SwinBias

Values = Mapping[str, Any]
Params = dict[str, jax.Array]
Turn = Callable[[Any], Any]
Shape = tuple[int | None, ...]
Path = tuple[str, ...]  # towers, then "tokens", or "additive" or "biases", place and array

NAMES = "parameter_names.json"
POSITIONAL = re.compile(
    r"position|relative|rel_pos|pos_emb|pos_bias|pos_proj|linear_pos|rpb|attention_biases|time_embeddings|bias_[uv]$"
    r"|r_[wr]_bias$|r_kernel$|rel_attn\.r$|emb_rel_|rel_logits|distance_embedding|(row|column)_embedder|xpath_(tag|subs)_|\bwpe\b"
)
COMPUTED = re.compile(r"position_ids$|relative_position_index$|inv_freq$|relative_coords_table$|attention_bias_idxs$")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What `load` found: schemes, and their arrays under the same places.

    Args:
        positions: of `from_config`.
        tokens: the token table `[V, F]`; None for a model of pictures or sounds.
        additive, biases: place -> the params of `positions.additive[place]` and `positions.biases[place]`. Where the
            layers of a place have arrays of their own, the keys are "place.0", "place.1", ...
        towers: the same of the parts of a composite.

    >>> from posembed_jax import hf
    >>> hf.Checkpoint(positions=hf.from_config({"model_type": "llama"})).additive  # RoPE learns nothing: `{}` binds it
    {}
    """

    positions: Positions
    tokens: jax.Array | None = None
    additive: dict[str, Params] = dataclasses.field(default_factory=dict)
    biases: dict[str, Params] = dataclasses.field(default_factory=dict)
    towers: dict[str, Checkpoint] = dataclasses.field(default_factory=dict)


def load(
    path: str | os.PathLike[str],
    *,
    config: Values | str | os.PathLike[str] | None = None,
    dtype: Any = None,
    follow_upstream_bugs: bool = False,
) -> Checkpoint:
    """The position schemes of a transformers checkpoint with their arrays, and its token table.

    Args:
        path: a folder with config.json and safetensors files; or, beside `config`, a file of them.
        config: as in `from_config`; of the folder when None.
        dtype: of the arrays; as they are stored when None.
        follow_upstream_bugs: as in `from_config`.

    Returns:
        A `Checkpoint`, whose arrays have the shapes that the settings say, such as `[heads, buckets]`.

    Raises:
        ValueError: what `from_config` and `read` refuse; a model type whose arrays are not known by name; tensors that
            are missing, of another shape, or that speak of positions and belong to none of the schemes.

    >>> import json, numpy as np, os, safetensors.numpy, tempfile
    >>> from posembed_jax import hf
    >>> config = {"model_type": "gpt2", "vocab_size": 7, "n_positions": 5, "n_embd": 4}
    >>> model = {"wte.weight": np.ones((7, 4), np.float32), "wpe.weight": np.ones((5, 4), np.float32)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.numpy.save_file(model, os.path.join(folder, "model.safetensors"))
    ...     found = hf.load(folder, config=config)
    >>> found.tokens.shape, found.positions.additive[""].bind(found.additive[""]).arrays["table"].shape
    ((7, 4), (5, 4))

    Source: https://github.com/huggingface/safetensors.
    """
    positions = from_config(path if config is None else config, follow_upstream_bugs=follow_upstream_bugs)
    known, held = parameter_names(), names(path)
    if positions.model_type not in known:
        raise ValueError(
            f"model_type is {positions.model_type!r}, the names of whose arrays are not known; `hf.read` needs them."
        )
    facts = known[positions.model_type]
    wanted = dict(_wanted(positions, facts, held))
    _check_all_read(held, {one.name for one in wanted.values()}, _ignored(facts), positions.model_type)
    return _checkpoint(positions, read(path, wanted, dtype=dtype))


def parameter_names() -> dict[str, Any]:
    """model type -> the names of its arrays: `tests/golden/make_parameters.py` writes them.

    {} in a name stands for a number: that of the place, as in "stages.1", then that of the layer within it.
    """
    return json.loads(resources.files("posembed_jax.hf").joinpath(NAMES).read_text())["types"]


def _wanted(positions: Positions, facts: Values, held: list[str], path: Path = ()) -> Iterable[tuple[Path, Stored]]:
    """Every array of a model and its towers: (where it goes, what it is in the file)."""
    tables = [name for name in facts.get("tokens", ()) if _ends(name, held)]  # tied tables are saved once
    if facts.get("tokens"):
        yield (*path, "tokens"), Stored((tables or facts["tokens"])[0], shape=(None, None))
    for kind in ("additive", "biases"):
        for place, scheme in getattr(positions, kind).items():
            about = positions.about.get(place, {})
            for key, array, one in _of_scheme(place, scheme, about, facts, held, positions.model_type):
                yield (*path, kind, key, array), one
    for key, tower in positions.towers.items():
        yield from _wanted(tower, facts.get("towers", {}).get(key, {}), held, (*path, key))


def _of_scheme(
    place: str, scheme: Scheme, about: Values, facts: Values, held: list[str], model_type: str
) -> Iterable[tuple[str, str, Stored]]:
    """(place, array, tensor) of one scheme: of each layer, where layers have their own."""
    word, _, number = place.partition(".")
    known = facts.get("places", {}).get(place) or (number.isdigit() and facts.get("places", {}).get(word)) or {}
    for array, initializer in scheme.inits().items():
        if array not in known:
            raise ValueError(
                f"model_type is {model_type!r}; the name of {array!r} at {place!r} is not known: `hf.read` needs it."
            )
        name = known[array].replace("{}", number, 1) if number.isdigit() else known[array]
        shape, turn = stored(scheme, array, initializer.shape, about)
        if "{}" not in name:
            yield place, array, Stored(name, shape=shape, then=turn)
            continue
        ending = re.compile(r"(?:^|\.)" + re.escape(name).replace(r"\{\}", r"(\d+)", 1).replace(r"\{\}", r"\d+") + "$")
        layers = {int(match[1]): match[0].removeprefix(".") for one in held if (match := ending.search(one))}
        if sorted(layers) != list(range(len(layers))) or not layers:
            raise ValueError(f"tensors of {name} are there for {sorted(layers)}; it needs to be each layer from 0 on.")
        for layer, full in sorted(layers.items()):
            yield f"{place}.{layer}" if place else str(layer), array, Stored(full, shape=shape, then=turn)


def stored(scheme: Scheme, array: str, shape: tuple[int, ...], about: Values) -> tuple[Shape, Turn]:
    """What transformers has of an array of ours: its shape there, and what makes it ours."""
    if about.get("stored") == "channels first":
        return (shape[-1], *about["shape"]), lambda x: np.moveaxis(x, 0, -1).reshape(shape)
    if about.get("stored") == "keys minus queries" and isinstance(scheme, SwinBias):
        return (shape[0], *(2 * size - 1 for size in scheme.window)), lambda x: x[:, ::-1, ::-1].reshape(shape)
    if isinstance(scheme, TilePositions) and array == "tiles":
        return (shape[0], math.prod(shape[1:])), lambda x: x.reshape(shape)
    if isinstance(scheme, T5Bias | ClippedBias | SwinBias | BEiTBias) and about.get("stored") != "heads first":
        return shape[::-1], np.transpose
    if array.startswith("hidden_kernel") or isinstance(scheme, RelativeLogits):
        return shape[:0:-1], lambda x: x.T[None]
    if array.startswith("hidden_bias"):
        return shape[1:], lambda x: x[None]
    if isinstance(scheme, ShawBias) and "zero_at" in about:
        rows = slice(about["zero_at"] - scheme.right, about["zero_at"] + scheme.left + 1)
        return (None, scheme.dim), lambda x: x[rows][::-1][None]
    if isinstance(scheme, TransformerXLBias) and array == "kernel":
        heads, features, dim = shape
        if about.get("stored") == "features first":
            return (features, heads, dim), lambda x: x.swapaxes(0, 1)
        return (heads * dim, features), lambda x: x.reshape(heads, dim, features).swapaxes(1, 2)
    return shape, same


def _ends(name: str, held: list[str]) -> bool:
    return any(one == name or one.endswith("." + name) for one in held)


def _ignored(facts: Values) -> list[str]:
    return [*facts.get("ignored", ()), *(x for tower in facts.get("towers", {}).values() for x in _ignored(tower))]


def _check_all_read(held: list[str], wanted: set[str], ignored: list[str], model_type: str) -> None:
    """A table of positions that no scheme took would be another model, silently."""
    left = [
        name
        for name in held
        if POSITIONAL.search(name) and not COMPUTED.search(name)
        if not any(name == one or name.endswith("." + one) for one in wanted)
        if not any(re.search(one, name) for one in ignored)
    ]
    if left:
        raise ValueError(
            f"tensors has {left}, which belong to none of the schemes of model_type {model_type!r}; it needs to be "
            "without: is config that of this checkpoint? `hf.read` reads them by name."
        )


def _checkpoint(positions: Positions, arrays: Mapping[Path, jax.Array]) -> Checkpoint:
    """Sorted into places."""
    own: dict[str, dict[str, Params]] = {"additive": {}, "biases": {}}
    for path, array in arrays.items():
        if len(path) == 3 and path[0] in own:
            own[path[0]].setdefault(path[1], {})[path[2]] = array
    towers = {
        key: _checkpoint(tower, {path[1:]: array for path, array in arrays.items() if path[0] == key})
        for key, tower in positions.towers.items()
    }
    return Checkpoint(positions=positions, tokens=arrays.get(("tokens",)), towers=towers, **own)
