"""Look-ups in learned tables: rows, for tokens and learned positions, and columns, for biases.

Casting a table to bfloat16 before the gather makes its gradient accumulate in bfloat16, where a row that is used 4,096
times gets 256. Here rows are gathered first and cast after, and the gradient accumulates in float32 whatever the
table's own dtype.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import checkify

from posembed_jax import checks

OUT_OF_RANGE = ("error", "clip", "checkify")


def rows(
    table: jax.Array, indices: jax.Array, *, name: str, out_of_range: str = "error", out_sharding: Any = None
) -> jax.Array:
    """`table[indices]` in float32: table `[V, F]`, indices int32 `[...]` -> `[..., F]`. Negative indices never wrap.

    out_of_range: what an index outside 0 ... V - 1 does.
        "error": `ValueError` when the indices are concrete, a row of NaN when they are traced;
        "clip": the nearest row;
        "checkify": a `checkify.check`, for a function wrapped in `checkify.checkify`.
    out_sharding: of the result, needed where the mesh is Explicit.
    """
    checks.one_of("out_of_range", out_of_range, OUT_OF_RANGE)
    size = table.shape[0]
    if out_of_range != "clip" and checks.is_concrete(indices):
        values = np.asarray(indices)
        if values.size and (values.min() < 0 or values.max() >= size):
            raise ValueError(
                f"{name} go from {values.min()} to {values.max()}, but the table has rows 0 to {size - 1}: "
                f"correct them, make the table longer, or pass out_of_range='clip'."
            )
    if out_of_range == "checkify":
        lowest, highest = jnp.min(indices), jnp.max(indices)
        message = name + " go from {lowest} to {highest}, outside the table's rows 0 to {last}"
        inside = (lowest >= 0) & (highest < size)
        checkify.check(inside, message, lowest=lowest, highest=highest, last=jnp.int32(size - 1))
    return _gather(jnp.asarray(table), indices, "clip" if out_of_range == "clip" else "fill", out_sharding)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _gather(table: jax.Array, indices: jax.Array, mode: str, out_sharding: Any) -> jax.Array:
    rows = table.at[indices].get(mode=mode, fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=out_sharding)
    return rows.astype(checks.compute_dtype(rows.dtype))


@_gather.defjvp
def _gather_jvp(mode, out_sharding, primals, tangents):
    table, indices = primals
    table_dot = tangents[0].astype(checks.compute_dtype(table.dtype))  # transposed: a float32 scatter-add
    rows_dot = table_dot.at[indices].get(
        mode=mode, fill_value=0, wrap_negative_indices=False, out_sharding=out_sharding
    )
    return _gather(table, indices, mode, out_sharding), rows_dot


LARGEST_PRODUCT = 2**22  # indices times columns, 16 MiB; measured on a CPU, where above it adding takes a tenth


@jax.custom_jvp
def columns(table: jax.Array, indices: jax.Array) -> jax.Array:
    """`table[:, indices]` in float32: table `[N, C]`, indices int32 `[...]` -> `[N, ...]`; NaN outside 0 ... C - 1.

    The gradient of a column is the sum over its indices: a product with ones and zeros, which is summed in a fixed
    order everywhere, unless those would be more than `LARGEST_PRODUCT`. Then values are added one by one to the table,
    in the order of the indices on a CPU, in any order on a GPU (without `--xla_gpu_deterministic_ops`).
    """
    return _gather_columns(table, indices, jnp.nan).astype(checks.compute_dtype(table.dtype))


@columns.defjvp
def _columns_jvp(primals, tangents):
    table, indices = primals
    dtype, size = checks.compute_dtype(table.dtype), table.shape[1]
    table_dot = tangents[0].astype(dtype)
    if indices.size * size > LARGEST_PRODUCT:
        return columns(table, indices), _gather_columns(table_dot, indices, 0.0)  # transposed: a float32 scatter-add
    chosen = jax.nn.one_hot(indices, size, dtype=dtype)
    return columns(table, indices), jnp.einsum("nc,...c->n...", table_dot, chosen, precision=lax.Precision.HIGHEST)


def _gather_columns(table: jax.Array, indices: jax.Array, outside: float) -> jax.Array:
    """From the flat table: a gather of rows of N values pads them to 128 on a TPU, 8 GiB for N = 8, T = S = 4096."""
    heads, size = table.shape
    starts = (jnp.arange(heads, dtype=jnp.int32) * size).reshape(-1, *[1] * indices.ndim)
    inside = (indices >= 0) & (indices < size)
    flat = jnp.where(inside[None], starts + indices[None], heads * size)
    return table.reshape(-1).at[flat].get(mode="fill", fill_value=outside, wrap_negative_indices=False)
