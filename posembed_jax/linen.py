"""The schemes as Flax Linen modules.

`posembed_jax.nnx` has the same names; parameters have the same names and shapes in both and in plain JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from posembed_jax import checks, contracts, scheme, tokens
from posembed_jax.attention import block
from posembed_jax.attention.cache import KVCache
from posembed_jax.scheme import check_settings

Axes = Mapping[str, tuple[str | None, ...]]


def _init(init: Any, axes: Axes | None, name: str) -> Any:
    """`init`, with logical axis names when `axes` has some for this array."""
    return init if axes is None or name not in axes else nn.with_logical_partitioning(init, axes[name])


class Scheme(nn.Module):
    """Any scheme as a module: it owns the learned arrays, and calling it calls the bound scheme.

    Attributes:
        scheme: the settings, such as `LearnedPositions(...)` or `T5Bias(...)`.
        param_dtype: of the learned arrays.
        logical_axes: names for the axes of learned arrays, such as `{"table": ("position", "embed")}`.

    >>> import jax, posembed_jax as pe
    >>> from posembed_jax import linen
    >>> module = linen.Scheme(pe.LearnedPositions(length=16, features=8))
    >>> out, variables = module.init_with_output(jax.random.key(0), pe.positions.arange(4))
    >>> out.shape, variables["params"]["table"].shape
    ((4, 8), (16, 8))
    """

    scheme: scheme.Scheme
    param_dtype: Any = jnp.float32
    logical_axes: Axes | None = None

    def setup(self):
        check_settings(self.scheme)
        checks.axis_names("logical_axes", self.logical_axes, self.scheme.inits())
        self.arrays = {
            name: self.param(name, _init(init, self.logical_axes, name), self.param_dtype)
            for name, init in self.scheme.inits().items()
        }

    def bound(self, *, length: int | jax.Array | None = None) -> Any:
        """The bound scheme, a pytree callable, as `attend` takes it. length: of a rotation that depends on it."""
        return block.bind(self.scheme, self.arrays, length)

    def __call__(self, *args: jax.Array) -> jax.Array:
        return self.bound()(*args)


class TokenEmbed(nn.Module):
    """A token table: `module(ids)` looks up, `module.logits(x)` is the tied output. See `embed` and `logits`.

    Attributes:
        vocabulary: V.
        features: F.
        dtype: of the embeddings; the table's own when None.
        param_dtype: of the table.
        scale, scale_dtype: as in `posembed_jax.embed`.
        logits_scale, logits_dtype: as `scale` and `dtype` in `posembed_jax.logits`.
        stddev: of the normal initializer.
        out_of_range: as in `posembed_jax.embed`.
        logical_axes: names for the axes of the table, such as `{"table": ("vocab", "embed")}`.

    Params: `{"table": [vocabulary, features]}`.

    >>> import jax, jax.numpy as jnp
    >>> from posembed_jax import linen
    >>> module = linen.TokenEmbed(vocabulary=11, features=8)
    >>> x, variables = module.init_with_output(jax.random.key(0), jnp.array([[2, 4, 2]]))
    >>> x.shape, module.apply(variables, x, method="logits").shape
    ((1, 3, 8), (1, 3, 11))
    """

    vocabulary: int
    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32
    scale: float | None = None
    scale_dtype: Any = jnp.float32
    logits_scale: float | None = None
    logits_dtype: Any = jnp.float32
    stddev: float = 0.02
    out_of_range: str = "error"
    logical_axes: Axes | None = None

    def setup(self):
        checks.axis_names("logical_axes", self.logical_axes, ("table",))
        init = scheme.normal(self.stddev, (self.vocabulary, self.features))
        self.table = self.param("table", _init(init, self.logical_axes, "table"), self.param_dtype)

    def __call__(self, ids: jax.Array, *, out_sharding: Any = None) -> jax.Array:
        return tokens.embed(
            self.table,
            ids,
            dtype=self.dtype,
            scale=self.scale,
            scale_dtype=self.scale_dtype,
            out_of_range=self.out_of_range,
            out_sharding=out_sharding,
        )

    def logits(self, x: jax.Array, *, out_sharding: Any = None) -> jax.Array:
        return tokens.logits(self.table, x, dtype=self.logits_dtype, scale=self.logits_scale, out_sharding=out_sharding)


def _bound(
    module: scheme.Scheme | Scheme | None,
    name: str,
    param_dtype: Any = jnp.float32,
    length: int | jax.Array | None = None,
) -> Any:
    """What attention calls, from settings (a submodule is made) or from a module that is shared; None stays None."""
    if module is None:
        return block.bind(None, {}, length)
    block.check_contract(name, module.scheme if isinstance(module, Scheme) else module)
    return (module if isinstance(module, Scheme) else Scheme(module, param_dtype, name=name)).bound(length=length)


class Attention(nn.Module):
    """Multi-head self-attention that takes a rotation, a bias, or both, and a KV cache.

    Attributes:
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
        dropout_rate: of the attention weights; needs the `dropout` stream when not deterministic.
        dtype, param_dtype, kernel_init: as in Flax's own layers.
        logical_axes: names for the axes of the kernels, `{"query": (...), "key": ..., "value": ..., "out": ...}`.

    Params: `query`, `key`, `value` (kernel `[F, heads, D]`), `out` (kernel `[N, D, F]`), and the learned arrays of
    `rotation`, `bias` and `value_bias` under these names.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> from posembed_jax import linen
    >>> attention = linen.Attention(heads=4, rotation=pe.RoPE(dim=8, layout="half"))
    >>> x, positions = jnp.ones((2, 5, 32)), pe.positions.arange(5)
    >>> out, variables = attention.init_with_output(jax.random.key(0), x, positions)
    >>> cache = pe.KVCache.empty(batch=2, capacity=16, heads=4, dim=8)
    >>> out, cache = attention.apply(variables, x, cache=cache)
    >>> out.shape, cache.lengths.tolist()
    ((2, 5, 32), [5, 5])
    """

    heads: int
    head_dim: int | None = None
    key_value_heads: int | None = None
    rotation: contracts.Rotation | Scheme | None = None
    bias: contracts.Bias | contracts.ContentBias | Scheme | None = None
    value_bias: contracts.ValueBias | Scheme | None = None
    temperature: Callable[[jax.Array], jax.Array] | None = None
    causal: bool = True
    window: int | tuple[int, int] | None = None
    scale: float | None = None
    logits_soft_cap: float | None = None
    use_bias: bool = False
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()
    implementation: str | None = None
    logical_axes: Axes | None = None

    @nn.compact
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
        checks.rate("dropout_rate", self.dropout_rate)
        checks.axis_names("logical_axes", self.logical_axes, block.KERNELS)
        head_dim = block.head_dim(x.shape[-1], self.heads, self.key_value_heads, self.head_dim)

        def project(name: str, features: Any, axis: Any = -1) -> Any:
            return nn.DenseGeneral(
                features,
                axis=axis,
                use_bias=self.use_bias,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=_init(self.kernel_init, self.logical_axes, name),
                name=name,
            )

        key_value_heads = self.key_value_heads or self.heads
        drop = self.dropout_rate > 0.0 and not deterministic
        out, cache = block.self_attention(
            project("query", (self.heads, head_dim))(x),
            project("key", (key_value_heads, head_dim))(x),
            project("value", (key_value_heads, head_dim))(x),
            token_positions=positions,
            segment_ids=segment_ids,
            cache=cache,
            rotation=_bound(self.rotation, "rotation", self.param_dtype, length),
            bias=_bound(self.bias, "bias", self.param_dtype),
            value_bias=_bound(self.value_bias, "value_bias", self.param_dtype),
            causal=self.causal,
            window=self.window,
            scale=self.scale,
            temperature=self.temperature,
            logits_soft_cap=self.logits_soft_cap,
            dropout_rate=self.dropout_rate if drop else 0.0,
            dropout_key=self.make_rng("dropout") if drop else None,
            implementation=self.implementation,
        )
        out = project("out", x.shape[-1], axis=(-2, -1))(out)
        return out if cache is None else (out, cache)


class AttentionFn(nn.Module):
    """A rotation and a bias for Flax's own `nn.MultiHeadDotProductAttention`: pass it as `attention_fn`.

    In cached decoding (`decode=True`) the query stands at the last slot that Flax's mask shows it. Flax caches keys
    before they are rotated, so every step rotates the whole cache; `Attention` above does not.

    Attributes:
        rotation, bias, implementation: as in `Attention`.
        positions: int32 `[T]` or `[B, T]`, or with the axes of rotation and bias, of this call; 0, 1, 2 ... when None.
        scale: `D ** -0.5` when None.

    >>> import flax.linen as nn, jax, jax.numpy as jnp, posembed_jax as pe
    >>> from posembed_jax import linen
    >>> attention_fn = linen.AttentionFn(bias=pe.T5Bias(heads=4, bidirectional=True))
    >>> module = nn.MultiHeadDotProductAttention(4, attention_fn=attention_fn)
    >>> variables = module.init(jax.random.key(0), jnp.ones((2, 5, 32)))
    >>> variables["params"]["attention_fn"]["bias"]["table"].shape
    (4, 32)
    """

    rotation: contracts.Rotation | Scheme | None = None
    bias: contracts.Bias | contracts.ContentBias | Scheme | None = None
    positions: jax.Array | None = None
    scale: float | None = None
    implementation: str | None = None

    @nn.compact
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
        module: nn.Module | None = None,
        force_fp32_for_softmax: bool = False,
        qk_attn_weights_einsum: Any = None,
        attn_weights_value_einsum: Any = None,
    ) -> jax.Array:
        """Called by Flax, which passes on only the keywords that it finds spelled out here."""
        del force_fp32_for_softmax  # the softmax is always in float32
        block.refuse_given(
            sow_weights=module,
            qk_attn_weights_einsum_cls=qk_attn_weights_einsum,
            attn_weights_value_einsum_cls=attn_weights_value_einsum,
        )
        return block.flax_attention(
            query,
            key,
            value,
            rotation=_bound(self.rotation, "rotation"),
            bias=_bound(self.bias, "bias"),
            token_positions=self.positions,
            mask=mask,
            is_causal=False,
            scale=self.scale,
            dropout_rng=dropout_rng,
            dropout_rate=dropout_rate,
            broadcast_dropout=broadcast_dropout,
            deterministic=deterministic,
            dtype=dtype,
            precision=precision,
            implementation=self.implementation,
        )
