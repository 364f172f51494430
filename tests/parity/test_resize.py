"""Resizing against torch's `interpolate` in float64, over many sizes: of the identity, so that it shows the matrix."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from transformers.models.beit import modeling_beit

import posembed_jax as pe

pytestmark = pytest.mark.parity

SIZES = [(old, new) for old in (1, 2, 3, 5, 7, 14, 16, 24, 33) for new in (1, 2, 3, 4, 6, 7, 16, 23, 37, 48)]


def theirs(old, *, size=None, scale_factor=None, **how):
    identity = torch.eye(old, dtype=torch.float64)[None, None]
    size = None if size is None else (size, old)
    scale_factor = None if scale_factor is None else (scale_factor, 1.0)
    return torch.nn.functional.interpolate(identity, size=size, scale_factor=scale_factor, **how)[0, 0].numpy()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_matrix(method, antialias, align_corners):
    how = {"antialias": antialias, "align_corners": align_corners}
    for old, new in SIZES:
        ours = pe.resize_matrix(old, new, method=method, **how)
        np.testing.assert_allclose(ours, theirs(old, size=new, mode=method, **how), rtol=0, atol=1e-7)
        if not align_corners and old != new:
            factor = (new + 0.1) / old
            ours = pe.resize_matrix(old, new, method=method, scale_factor=factor, **how)
            np.testing.assert_allclose(ours, theirs(old, scale_factor=factor, mode=method, **how), rtol=0, atol=1e-7)


def test_nearest():
    for old, new in itertools.product(range(1, 65), range(1, 65, 3)):
        np.testing.assert_array_equal(
            pe.resize_matrix(old, new, method="nearest"), theirs(old, size=new, mode="nearest")
        )


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_samples(method, padding):
    """torch counts from -1 to 1, here from the middle of one end to that of the other, and (x, y)."""
    generator = torch.Generator().manual_seed(0)
    table, at = torch.randn(1, 3, 5, 7, generator=generator), 2.6 * torch.rand(1, 1, 200, 2, generator=generator) - 1.3
    out = torch.nn.functional.grid_sample(table, at, mode=method, padding_mode=padding, align_corners=True)
    coordinates = (at[0, 0].numpy()[:, ::-1] + 1) * np.array([4, 6], np.float32) / 2
    ours = pe.sample_table(table[0].permute(1, 2, 0).numpy(), coordinates, method=method, padding=padding)
    np.testing.assert_allclose(ours, out[0, :, 0].T, rtol=0, atol=2e-5)


@pytest.mark.parametrize("new", [(4, 4), (6, 3), (5, 7)], ids=str)
def test_offsets_of_beit(new):
    """BEiT's table for a window of another size, with the three entries of its class token."""
    config = transformers.BeitConfig(hidden_size=6, num_attention_heads=3, image_size=16, patch_size=4)
    module = modeling_beit.BeitRelativePositionBias(config)
    torch.nn.init.normal_(module.relative_position_bias_table, generator=torch.Generator().manual_seed(0))
    table = module.relative_position_bias_table.detach().numpy().T
    resized = pe.resize_bias_table(table, (4, 4), new, method="bilinear", extra=3, shrink=True)
    at = np.concatenate([np.full((1, 2), -1, np.int32), np.asarray(pe.positions.grid(new))])
    ours = pe.BEiTBias(heads=3, shape=new).bind({"table": resized})(at, at)
    theirs = module(new, dim_size=None)[0].detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
