"""The schemes as Flax NNX modules.

`posembed_jax.linen` has the same names; parameters have the same names and shapes in both and in plain JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posembed_jax import checks, contracts, scheme, tokens
from posembed_jax.attention import block
from posembed_jax.attention.cache import KVCache
from posembed_jax.scheme import check_settings

Axes = Mapping[str, tuple[str | None, ...]]
DEFAULT_KERNEL_INIT = nnx.initializers.lecun_normal()


def _metadata(out_sharding: Axes | None, name: str) -> dict[str, Any]:
    return {} if out_sharding is None or name not in out_sharding else {"out_sharding": out_sharding[name]}


class Scheme(nnx.Module):
    """Any scheme as a module: it owns the learned arrays, and calling it calls the bound scheme.

    Args:
        scheme: the settings, such as `LearnedPositions(...)` or `T5Bias(...)`.
        param_dtype: of the learned arrays.
        out_sharding: mesh or logical axes of learned arrays, such as `{"table": (None, "model")}`.
        rngs: its `params` stream, used only when something is learned.

    >>> import posembed_jax as pe
    >>> from flax import nnx
    >>> from posembed_jax import nnx as pnnx
    >>> module = pnnx.Scheme(pe.LearnedPositions(length=16, features=8), rngs=nnx.Rngs(0))
    >>> module(pe.positions.arange(4)).shape, module.table.shape
    ((4, 8), (16, 8))
    """

    def __init__(
        self,
        scheme: scheme.Scheme,
        *,
        param_dtype: Any = jnp.float32,
        out_sharding: Axes | None = None,
        rngs: nnx.Rngs,
    ):
        check_settings(scheme)
        checks.axis_names("out_sharding", out_sharding, scheme.inits())
        self.scheme = scheme
        for name, init in scheme.inits().items():
            setattr(self, name, nnx.Param(init(rngs.params(), param_dtype), **_metadata(out_sharding, name)))

    def bound(self, *, length: int | jax.Array | None = None) -> Any:
        """The bound scheme, a pytree callable, as `attend` takes it. length: of a rotation that depends on it."""
        return block.bind(self.scheme, {name: getattr(self, name)[...] for name in self.scheme.inits()}, length)

    def __call__(self, *args: jax.Array) -> jax.Array:
        return self.bound()(*args)


class TokenEmbed(nnx.Module):
    """A token table: `module(ids)` looks up, `module.logits(x)` is the tied output. See `embed` and `logits`.

    Args:
        vocabulary: V.
        features: F.
        dtype: of the embeddings; the table's own when None.
        param_dtype: of the table.
        scale, scale_dtype: as in `posembed_jax.embed`.
        logits_scale, logits_dtype: as `scale` and `dtype` in `posembed_jax.logits`.
        stddev: of the normal initializer.
        out_of_range: as in `posembed_jax.embed`.
        out_sharding: mesh or logical axes of the table, such as `{"table": ("model", None)}`.
        rngs: its `params` stream.

    Params: `table`, `[vocabulary, features]`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from posembed_jax import nnx as pnnx
    >>> module = pnnx.TokenEmbed(vocabulary=11, features=8, rngs=nnx.Rngs(0))
    >>> x = module(jnp.array([[2, 4, 2]]))
    >>> x.shape, module.logits(x).shape
    ((1, 3, 8), (1, 3, 11))
    """

    def __init__(
        self,
        vocabulary: int,
        features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale: float | None = None,
        scale_dtype: Any = jnp.float32,
        logits_scale: float | None = None,
        logits_dtype: Any = jnp.float32,
        stddev: float = 0.02,
        out_of_range: str = "error",
        out_sharding: Axes | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.scale, self.scale_dtype = dtype, scale, scale_dtype
        self.logits_scale, self.logits_dtype = logits_scale, logits_dtype
        self.out_of_range = out_of_range
        checks.axis_names("out_sharding", out_sharding, ("table",))
        init = scheme.normal(stddev, (vocabulary, features))
        self.table = nnx.Param(init(rngs.params(), param_dtype), **_metadata(out_sharding, "table"))

    def __call__(self, ids: jax.Array, *, out_sharding: Any = None) -> jax.Array:
        return tokens.embed(
            self.table[...],
            ids,
            dtype=self.dtype,
            scale=self.scale,
            scale_dtype=self.scale_dtype,
            out_of_range=self.out_of_range,
            out_sharding=out_sharding,
        )

    def logits(self, x: jax.Array, *, out_sharding: Any = None) -> jax.Array:
        return tokens.logits(
            self.table[...], x, dtype=self.logits_dtype, scale=self.logits_scale, out_sharding=out_sharding
        )


def _module(name: str, module: scheme.Scheme | Scheme | None, param_dtype: Any, rngs: nnx.Rngs) -> Scheme | None:
    """A module for settings; a module that layers share, and None, stay what they are."""
    if module is None:
        return None
    block.check_contract(name, module.scheme if isinstance(module, Scheme) else module)
    return module if isinstance(module, Scheme) else Scheme(module, param_dtype=param_dtype, rngs=rngs)


def _bound(module: Scheme | None, length: int | jax.Array | None = None) -> Any:
    return block.bind(None, {}, length) if module is None else module.bound(length=length)


class Attention(nnx.Module):
    """Multi-head self-attention that takes a rotation, a bias, or both, and a KV cache.

    Args:
        features: F of the input and output.
        heads: N.
        head_dim: D; `features // heads` when None.
        key_value_heads: K, which divides N; N when None.
        rotation: a Rotation such as `RoPE(...)`, or a `Scheme` module that layers share. Keys are rotated before they
            are cached.
        bias: a Bias or ContentBias such as `T5Bias(...)`, or a `Scheme` module that layers share, as T5's do.
        value_bias: a ValueBias, or a `Scheme` module.
        temperature: multiplies queries by position, such as `SteppedTemperature(...)`.
        causal, window, scale, logits_soft_cap, implementation: as in `posembed_jax.attend`.
        use_bias: whether the projections have bias vectors.
        dropout_rate: of the attention weights; uses `rngs.dropout` when not deterministic.
        dtype, param_dtype, kernel_init: as in Flax's own layers.
        out_sharding: axes of the kernels, `{"query": (...), "key": ..., "value": ..., "out": ...}`.
        rngs: its `params` stream, and `dropout` with a dropout_rate.

    Params: `query`, `key`, `value` (kernel `[F, heads, D]`), `out` (kernel `[N, D, F]`), and the learned arrays of
    `rotation`, `bias` and `value_bias` under these names.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> from flax import nnx
    >>> from posembed_jax import nnx as pnnx
    >>> attention = pnnx.Attention(32, heads=4, rotation=pe.RoPE(dim=8, layout="half"), rngs=nnx.Rngs(0))
    >>> out = attention(jnp.ones((2, 5, 32)), pe.positions.arange(5))
    >>> cache = pe.KVCache.empty(batch=2, capacity=16, heads=4, dim=8)
    >>> out, cache = attention(jnp.ones((2, 5, 32)), cache=cache)
    >>> out.shape, cache.lengths.tolist()
    ((2, 5, 32), [5, 5])
    """

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        head_dim: int | None = None,
        key_value_heads: int | None = None,
        rotation: contracts.Rotation | Scheme | None = None,
        bias: contracts.Bias | contracts.ContentBias | Scheme | None = None,
        value_bias: contracts.ValueBias | Scheme | None = None,
        temperature: Callable[[jax.Array], jax.Array] | None = None,
        causal: bool = True,
        window: int | tuple[int, int] | None = None,
        scale: float | None = None,
        logits_soft_cap: float | None = None,
        use_bias: bool = False,
        dropout_rate: float = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = DEFAULT_KERNEL_INIT,
        implementation: str | None = None,
        out_sharding: Axes | None = None,
        rngs: nnx.Rngs,
    ):
        checks.rate("dropout_rate", dropout_rate)
        checks.axis_names("out_sharding", out_sharding, block.KERNELS)
        head_dim = block.head_dim(features, heads, key_value_heads, head_dim)

        def project(name: str, inner: Any, outer: Any, axis: Any = -1) -> nnx.LinearGeneral:
            return nnx.LinearGeneral(
                inner,
                outer,
                axis=axis,
                use_bias=use_bias,
                dtype=dtype,
                param_dtype=param_dtype,
                kernel_init=kernel_init,
                kernel_metadata=_metadata(out_sharding, name),
                rngs=rngs,
            )

        self.query = project("query", features, (heads, head_dim))
        self.key = project("key", features, (key_value_heads or heads, head_dim))
        self.value = project("value", features, (key_value_heads or heads, head_dim))
        self.out = project("out", (heads, head_dim), features, axis=(-2, -1))
        self.rotation = _module("rotation", rotation, param_dtype, rngs)
        self.bias = _module("bias", bias, param_dtype, rngs)
        self.value_bias = _module("value_bias", value_bias, param_dtype, rngs)
        self.temperature = temperature
        self.causal, self.window, self.scale, self.logits_soft_cap = causal, window, scale, logits_soft_cap
        self.implementation, self.dropout_rate = implementation, dropout_rate
        self.dropout_rngs = rngs.dropout.fork() if dropout_rate > 0.0 else None

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array | None = None,
        *,
        segment_ids: jax.Array | None = None,
        cache: KVCache | None = None,
        length: int | jax.Array | None = None,
        deterministic: bool = True,
    ) -> Any:
        """x `[B, T, F]` -> `[B, T, F]`, or `([B, T, F], cache)` when a cache is given.

        positions: int32 `[T]` or `[B, T]`, or with the axes of rotation and bias; with a cache, None goes on counting.
        segment_ids: int32 `[B, T]`, 0 = padding: attend within the same document only. With a cache, None is the
            document of each row's last token.
        length: of the sequences, for a rotation that depends on it: an int, or int32 `[]` or `[B]`. It needs to be the
            same for all the life of a cache; `rerotate` turns the cached keys over to another.
        """
        needs = "floating [B, T, F]"
        checks.rank("x", x, {3}, needs)
        checks.floating("x", x, needs)
        checks.flag("deterministic", deterministic)
        drop = self.dropout_rate > 0.0 and not deterministic
        out, cache = block.self_attention(
            self.query(x),
            self.key(x),
            self.value(x),
            token_positions=positions,
            segment_ids=segment_ids,
            cache=cache,
            rotation=_bound(self.rotation, length),
            bias=_bound(self.bias),
            value_bias=_bound(self.value_bias),
            causal=self.causal,
            window=self.window,
            scale=self.scale,
            temperature=self.temperature,
            logits_soft_cap=self.logits_soft_cap,
            dropout_rate=self.dropout_rate if drop else 0.0,
            dropout_key=self.dropout_rngs() if self.dropout_rngs is not None and drop else None,
            implementation=self.implementation,
        )
        out = self.out(out)
        return out if cache is None else (out, cache)


class AttentionFn(nnx.Module):
    """A rotation and a bias for Flax's own `nnx.MultiHeadAttention`: pass it as `attention_fn`.

    It is a module, so that a learned bias is a parameter of the model; in a `functools.partial` it would never train.
    In cached decoding (`decode=True`) the query stands at the last slot that Flax's mask shows it. Flax caches keys
    before they are rotated, so every step rotates the whole cache; `Attention` above does not.

    Args:
        rotation, bias, implementation: as in `Attention`.
        scale: `D ** -0.5` when None.
        rngs: its `params` stream, used only when something is learned.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> from flax import nnx
    >>> from posembed_jax import nnx as pnnx
    >>> attention_fn = pnnx.AttentionFn(bias=pe.T5Bias(heads=4, bidirectional=True), rngs=nnx.Rngs(0))
    >>> module = nnx.MultiHeadAttention(4, 32, attention_fn=attention_fn, decode=False, rngs=nnx.Rngs(1))
    >>> module(jnp.ones((2, 5, 32))).shape, module.attention_fn.bias.table.shape
    ((2, 5, 32), (4, 32))
    """

    def __init__(
        self,
        *,
        rotation: contracts.Rotation | Scheme | None = None,
        bias: contracts.Bias | contracts.ContentBias | Scheme | None = None,
        scale: float | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.rotation = _module("rotation", rotation, jnp.float32, rngs)
        self.bias = _module("bias", bias, jnp.float32, rngs)
        self.scale, self.implementation = scale, implementation

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None = None,
        dropout_rng: jax.Array | None = None,
        dropout_rate: float = 0.0,
        broadcast_dropout: bool = True,
        deterministic: bool = False,
        dtype: Any = None,
        precision: Any = None,
        module: nnx.Module | None = None,
        is_causal: bool = False,
        input_positions: jax.Array | None = None,
    ) -> jax.Array:
        """Called by Flax."""
        block.refuse_given(sow_weights=module)
        return block.flax_attention(
            query,
            key,
            value,
            rotation=_bound(self.rotation),
            bias=_bound(self.bias),
            token_positions=input_positions,
            mask=mask,
            is_causal=is_causal,
            scale=self.scale,
            dropout_rng=dropout_rng,
            dropout_rate=dropout_rate,
            broadcast_dropout=broadcast_dropout,
            deterministic=deterministic,
            dtype=dtype,
            precision=precision,
            implementation=self.implementation,
        )
