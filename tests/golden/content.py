"""Biases that are functions of content: their golden cases.

Products are sums of D terms in another order than torch's: `rounding` is what their rounding comes to.
"""

import numpy as np
from case import check_equal

import posembed_jax as pe


def check_shaw(case):
    """SpeechT5's vectors of `query position - key position`: ours are theirs, read by queries of one channel each."""
    table = case["par.pe_k"]
    rows, dim = table.shape
    scheme = pe.ShawBias(heads=dim, dim=dim, left=rows // 2 - 1, right=rows // 2, scale=1.0)
    queries, keys, _ = case["out.out"].shape
    channels = np.tile(np.eye(dim, dtype=np.float32), (1, queries, 1, 1))
    at, keys_at = pe.positions.arange(queries), pe.positions.arange(keys)
    bias = scheme.bind({"table": table[None, ::-1]})(channels, np.zeros((1, keys, 1, dim), np.float32), at, keys_at)
    check_equal(np.moveaxis(np.asarray(bias[0]), 0, -1), case["out.out"])
