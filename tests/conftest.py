"""Every test runs on 8 CPU devices, with implicit dtype and rank promotion refused.

Most of the time goes into compiling small programs, and LLVM takes half of it when it optimizes nothing. CI runs the
tests again with `XLA_FLAGS=--xla_backend_optimization_level=3`, XLA's default.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
