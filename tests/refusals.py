"""What the rows of refusals are made of: arguments that are right, and what messages end in.

A row is (function, argument, what comes, exception, what the message says after "argument is what came"[, before
that]).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import posembed_jax as pe
from posembed_jax import vision

B, T, S, N, K, D, F, V = 2, 3, 5, 4, 2, 8, 6, 7
KEY = jax.random.key(0)
QUERY, KEYS = jnp.ones((B, T, N, D)), jnp.ones((B, S, K, D))
TABLE, IDS, X = jnp.ones((V, F)), jnp.zeros((B, T), jnp.int32), jnp.ones((B, T, N * D))
P, Q = jnp.arange(T, dtype=jnp.int32), jnp.arange(S, dtype=jnp.int32)
FLOATS, BOOLS = jnp.ones(T), jnp.ones(T, bool)
WIDE = np.array([2**31])

ROPE = pe.RoPE(dim=D, layout="half")
LEARNED = pe.LearnedPositions(length=4, features=F)
ALIBI = pe.ALiBi(heads=N).bind({})
COS, SIN = ROPE.cos_sin(P)
CACHE = pe.KVCache.empty(batch=B, capacity=4, heads=K, dim=D)
NEW = {"keys": KEYS[:, :T], "values": KEYS[:, :T], "positions": IDS, "segment_ids": IDS + 1}

INT = "; it needs to be a Python int of at least 1"
COUNT = "; it needs to be a Python int of at least 0"
POSITIVE = "; it needs to be a finite Python number above 0"
FLAG = "; it needs to be True or False"
POSITIONS = "; it needs to be int32 positions [T] or [B, T]"
NO_ARRAY = " ... pass a jax or numpy array"
NARROW = " ... pass an int32 array; positions and ids are never cast to the activation dtype"
CAST = " ... cast it with `.astype(jnp.int32)`"
MODES = "; it needs to be one of 'error', 'clip', 'checkify'"


def good(function, **arguments):
    """The function with every argument right; a row replaces one of them."""
    return functools.partial(function, **arguments)


CENTERS, DRAWS = vision.patch_centers((1, 3)), jnp.zeros(5)
ROTARY = good(pe.RoPE, dim=D, layout="half")
MIXED = good(pe.RoPEMixed, dim=D, layout="half")
DYNAMIC = pe.RoPE(dim=D, layout="half", scaling=pe.DynamicNTK(factor=2.0, original_length=4))
REROTATE = good(pe.rerotate, old=DYNAMIC.bind({}, length=4), new=DYNAMIC.bind({}, length=8))
ROTATE = good(pe.rotate, x=QUERY, cos=COS, sin=SIN, layout="half")
TYPES, GRIDS = jnp.array([[0, 1, 1, 0], [1, 2, 2, 2]]), jnp.array([[1, 2, 4], [1, 2, 2]])
