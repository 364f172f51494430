"""What is here of a peer's test suite, as data: docs/peers.md is written from it, test_counts.py holds it to pytest."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One file of a peer's tests: a test of ours is named as the peer's, with `prefix` after `test_`.

    here: the peer's test functions that have a test here.
    absent: why -> the test functions that have none.
    """

    path: str
    here: tuple[str, ...]
    absent: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    prefix: str = ""

    def ours(self, name: str) -> str:
        return f"test_{self.prefix}{name.removeprefix('test_')}"

    def elsewhere(self) -> list[str]:
        return [name for names in self.absent.values() for name in names]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """The files about positions and embeddings of one peer, and what is to be known about them."""

    peer: str
    repository: str
    commit: str
    licence: str
    files: tuple[File, ...]
    notes: tuple[str, ...] = ()

    def ours(self) -> list[str]:
        return [file.ours(name) for file in self.files for name in file.here]


def modules() -> Iterator[ModuleType]:
    """The modules of this folder that have a SUITE."""
    for path in sorted(set(HERE.glob("test_*.py")) - {HERE / "test_counts.py"}):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def tests_of(module: ModuleType) -> dict[str, int]:
    """The test functions of a module and how many cases each has."""
    return {
        name: math.prod(len(mark.args[1]) for mark in getattr(f, "pytestmark", ()) if mark.name == "parametrize")
        for name, f in vars(module).items()
        if name.startswith("test_")
    }


@functools.partial(jax.jit, static_argnums=0)
def call(scheme: Any, *arrays: Any) -> jax.Array:
    """Of a scheme that learns nothing. One program takes a tenth of the time that the many of eager calls do."""
    return scheme.bind({})(*arrays)
