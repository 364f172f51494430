"""Every test runs on 8 CPU devices, with implicit dtype and rank promotion refused.

Most of the time goes into compiling small programs, and LLVM takes half of it when it optimizes nothing. CI runs
those of arithmetic again with `XLA_FLAGS=--xla_backend_optimization_level=3`, XLA's default.

In a run of all tests, those of peers are slow, and of the golden cases all but one of each mechanism.
"""

import os
import pathlib
import re

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SLOW_UNLESS_ASKED_FOR = ("peers", "golden")


def pytest_collection_modifyitems(config, items):
    asked = [config.invocation_params.dir / argument.split("::")[0] for argument in config.args]
    for name in SLOW_UNLESS_ASKED_FOR:
        folder, kept = pathlib.Path(__file__).parent / name, set()
        if any(path == folder or folder in path.parents for path in asked):
            continue
        for item in items:
            mechanism = re.search(r"test_golden\[(\w+?)__", item.nodeid)
            if folder in item.path.parents and (mechanism is None or mechanism[1] in kept):
                item.add_marker(pytest.mark.slow)
            kept.add(mechanism and mechanism[1])


@pytest.fixture
def facts_are_read_once(monkeypatch):
    """`from_config` reads them anew each time; some of these tests call it a hundred thousand times."""
    from posembed_jax.hf import config
    from posembed_jax.hf.facts import facts

    known = facts()
    monkeypatch.setattr(config, "facts", lambda: known)
