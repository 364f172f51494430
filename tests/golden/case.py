"""A golden case, and how its arrays are compared."""

import json
import pathlib
import re
import zipfile

import numpy as np

CASES = pathlib.Path(__file__).parent / "cases"


class Unsupported(Exception):
    """We have nothing for this case yet; the message says what is missing."""


def array_names(folder, name):
    """Names of the arrays of a case, without reading them."""
    with zipfile.ZipFile(folder / f"{name}.npz") as file:
        return {entry.removesuffix(".npy") for entry in file.namelist()}


class Case:
    """NAME.npz and NAME.json: arrays `in.*`, `par.*`, `out.*`; the configuration as it was given and as saved."""

    def __init__(self, folder, name):
        self.meta = json.loads((folder / f"{name}.json").read_text())
        self.mechanism, self.model, self.variant = name.split("__")
        self.model = self.meta.get("model_type") or self.model
        self.config = self.meta.get("config_saved") or {}
        self.configs = [self.meta[key] for key in ("config_input", "config_saved") if self.meta.get(key) is not None]
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: narrow(arrays[key]) for key in arrays}

    def __getitem__(self, key):
        return self.arrays[key]

    def outputs(self, pattern):
        """(name, groups of the pattern as ints, array) of every output that matches, of which there must be one."""
        found = [(k, re.fullmatch(f"out.(?:{pattern})", k)) for k in self.arrays]
        found = [(k, [None if g is None else int(g) for g in m.groups()], self[k]) for k, m in found if m]
        assert found, (pattern, list(self.arrays))
        return found


def narrow(x):
    return x.astype(np.int32) if x.dtype == np.int64 else x


def check_close(ours, theirs, tolerance):
    """|ours - theirs| <= tolerance, in float64: a number, or an array."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    excess = np.abs(np.float64(ours) - np.float64(theirs)) - tolerance
    assert np.all(excess <= 0), f"{np.max(excess)} over the tolerance"


def check_equal(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours), theirs)
