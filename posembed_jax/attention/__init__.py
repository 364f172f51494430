"""Attention: `attend` and the KV cache. It knows the contracts of `posembed_jax.scheme`, never a scheme."""

from posembed_jax.attention.api import attend as attend
from posembed_jax.attention.cache import KVCache as KVCache
from posembed_jax.attention.channels import bias_to_channels as bias_to_channels
