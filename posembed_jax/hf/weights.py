"""Arrays of a transformers checkpoint: what a safetensors file, or a folder of them, has under a name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks

Key = TypeVar("Key")
Shape = tuple[int, ...]

FLOATS = ("F64", "F32", "F16", "BF16")
INDEX = "model.safetensors.index.json"


def same(x: np.ndarray) -> np.ndarray:
    return x


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint, and how it becomes ours.

    Args:
        name: of the tensor, or its end: "embed_tokens.weight" is found as "model.embed_tokens.weight".
        shape: in the file, but for axes of size 1 in front, and for a grid `[height, width, F]` where
            `[T, F]` is wanted; None stands for any, and for any size.
        then: what is done to it: `np.transpose` for a T5 table, `functools.partial(permute_layout, ...)` for the
            kernel of queries or keys.

    >>> import numpy as np
    >>> from posembed_jax import hf
    >>> hf.Stored("relative_attention_bias.weight", shape=(32, 8), then=np.transpose).shape  # ours is `[8, 32]`
    (32, 8)
    """

    name: str
    shape: tuple[int | None, ...] | None = dataclasses.field(default=None, kw_only=True)
    then: Callable[[Any], Any] = dataclasses.field(default=same, kw_only=True)


def read(
    path: str | os.PathLike[str], tensors: Mapping[Key, str | Stored], *, dtype: Any = None
) -> dict[Key, jax.Array]:
    """Some tensors of a checkpoint; the others are not read from the disk.

    Args:
        path: a .safetensors file, the index of several (.safetensors.index.json), or the folder of either.
        tensors: our name -> the tensor's, or a `Stored`.
        dtype: of the arrays; as they are stored when None.

    Returns:
        our name -> array, of the shape that is stored but for what `Stored.then` does, as `[heads, buckets]`.

    Raises:
        ImportError: safetensors is not there: it comes with the extra `hf`.
        FileNotFoundError: path, or a file that the index names.
        ValueError: tensors that are missing, of another shape, not floating, or more than one of that name.

    >>> import numpy as np, os, safetensors.numpy, tempfile
    >>> from posembed_jax import hf
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = {"model.embed_tokens.weight": np.ones((7, 4), np.float32)}
    >>> safetensors.numpy.save_file(model, os.path.join(folder.name, "model.safetensors"))
    >>> hf.read(folder.name, {"table": "embed_tokens.weight"})["table"].shape
    (7, 4)
    >>> folder.cleanup()

    Source: https://github.com/huggingface/safetensors.
    """
    wanted = {key: Stored(one) if isinstance(one, str) else one for key, one in tensors.items()}
    for key, one in wanted.items():
        checks.contract(f"tensors[{key!r}]", one, Stored, "the name of a tensor or a Stored")
    with contextlib.ExitStack() as stack:
        files = {file: stack.enter_context(_safe_open()(file, framework="numpy")) for file in _files(Path(path))}
        holds = {name: file for file in files for name in list(files[file].keys())}
        names = _names(wanted, holds, path)
        return {
            key: jnp.asarray(one.then(_tensor(names[key], one, files[holds[names[key]]])), dtype)
            for key, one in wanted.items()
        }


def names(path: str | os.PathLike[str]) -> list[str]:
    """Of all tensors of a checkpoint."""
    safe_open, found = _safe_open(), []
    for part in _files(Path(path)):
        with safe_open(part, framework="numpy") as file:
            found += list(file.keys())
    return found


def _safe_open() -> Any:
    try:
        from safetensors import safe_open  # an extra of this package
    except ImportError as error:
        raise ImportError(
            "safetensors is not installed; reading checkpoints needs it: pip install safetensors."
        ) from error
    return safe_open


def _files(path: Path) -> list[Path]:
    """The files of a checkpoint: those that its index names, or the one that there is."""
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        whole = [file for file in found if file.name == "model.safetensors"] or found
        if (path / INDEX).exists():
            path = path / INDEX
        elif len(whole) == 1:
            path = whole[0]
        else:
            raise FileNotFoundError(
                f"path is {str(path)!r}, which has {[file.name for file in found]}; it needs to have one .safetensors "
                f"file, or {INDEX}: transformers' save_pretrained writes them."
            )
    if path.name.endswith(".json"):
        files = sorted({path.parent / name for name in json.loads(path.read_text())["weight_map"].values()})
    else:
        files = [path]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"path is {str(path)!r}; it needs the file {str(file)!r}, which is not there.")
        if file.suffix != ".safetensors":
            raise ValueError(
                f"path is {str(file)!r}; it needs to be a .safetensors file: transformers' save_pretrained writes one."
            )
    return files


def _names(wanted: Mapping[Key, Stored], holds: Mapping[str, Path], path: Any) -> dict[Key, str]:
    """The name of each tensor in the file, which may have a prefix: that of the model inside of one with a head."""
    found, missing = {}, []
    for key, one in wanted.items():
        names = [one.name] if one.name in holds else [name for name in holds if name.endswith("." + one.name)]
        if len(names) > 1:
            raise ValueError(f"tensors[{key!r}] is {one.name!r}, of which {path} has {names}: say which.")
        if names:
            found[key] = names[0]
        else:
            missing.append(one.name)
    if missing:
        raise ValueError(f"tensors has {missing}, which {path} has not; its {len(holds)} tensors are {_some(holds)}.")
    return found


def _some(names: Mapping[str, Any]) -> str:
    first = ", ".join(list(names)[:8])
    return first + ", ..." if len(names) > 8 else first


def _tensor(name: str, one: Stored, file: Any) -> np.ndarray:
    """Checked before it is read."""
    part = file.get_slice(name)
    shape, kind = tuple(part.get_shape()), part.get_dtype()
    inner = shape if one.shape is None else folded(shape, one.shape)
    if inner is None or kind not in FLOATS:
        needs = "" if one.shape is None else f" {list(one.shape)}"
        raise ValueError(f"{name} is {kind}{list(shape)}; it needs to be floating{needs}: is it of this model?")
    return file.get_tensor(name).reshape(inner)


def folded(shape: Shape, wanted: tuple[int | None, ...]) -> Shape | None:
    """`shape` with as many axes as are wanted, if it then is what is wanted: ones in front go, a grid becomes rows."""
    inner = (1,) * (len(wanted) - len(shape)) + shape
    while len(inner) > len(wanted) and inner[0] == 1:
        inner = inner[1:]
    if len(inner) > len(wanted) == 2:
        inner = math.prod(inner[:-1]), inner[-1]
    fits = len(inner) == len(wanted) and all(b in (None, a) for a, b in zip(inner, wanted, strict=True))
    return inner if fits else None
