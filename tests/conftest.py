"""Every test runs on 8 CPU devices, with implicit dtype and rank promotion refused.

Most of the time goes into compiling small programs, and LLVM takes half of it when it optimizes nothing. CI runs the
tests again with `XLA_FLAGS=--xla_backend_optimization_level=3`, XLA's default.

In a run of all tests, those of peers and the sweep of golden cases over default configurations are slow.
"""

import os
import pathlib

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SLOW_UNLESS_ASKED_FOR = {"peers": "tests/peers/", "golden": "test_golden[sweep_"}


def pytest_collection_modifyitems(config, items):
    asked = [config.invocation_params.dir / argument.split("::")[0] for argument in config.args]
    for name, part in SLOW_UNLESS_ASKED_FOR.items():
        folder = pathlib.Path(__file__).parent / name
        if not any(path == folder or folder in path.parents for path in asked):
            for item in items:
                if part in item.nodeid:
                    item.add_marker(pytest.mark.slow)
