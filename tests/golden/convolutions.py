"""Cases of convolutions that stand for positions: of wav2vec 2.0 and its kin."""

import jax.numpy as jnp
import numpy as np
from case import check_close
from rotary import FEW

import posembed_jax as pe


def check(case):
    """One layer with the kernel of weight_norm, or several with layer norm; SEW's channels are first, with a stride."""
    x, stride, channels_first = case["in.x"], 1, False
    if "par.conv.bias" in case.arrays:
        layers = [("par.conv.", False)]
        channels_first = x.shape[1] == len(case["par.conv.bias"]) and x.shape[2] != x.shape[1]
        stride = case.config.get("squeeze_factor", 1) if channels_first else 1
    else:
        count = sum(name.endswith("conv.bias") for name in case.arrays)
        layers = [(f"par.layers.{layer}.conv.", True) for layer in range(count)]
    y = jnp.asarray(np.swapaxes(x, 1, 2) if channels_first else x)
    for prefix, normalize in layers:
        bias = jnp.asarray(case[f"{prefix}bias"])
        y = pe.conv_positions(y, kernel_of(case, prefix), bias=bias, stride=stride, normalize=normalize)
    y = np.swapaxes(np.asarray(y), 1, 2) if channels_first else y
    check_close(y, case["out.out"], 20 * FEW * (1 + np.max(np.abs(case["out.out"]))) * len(layers))


def kernel_of(case, prefix):
    if f"{prefix}weight" in case.arrays:
        return jnp.asarray(case[f"{prefix}weight"].T)
    gain, direction = (case[f"{prefix}parametrizations.weight.original{part}"] for part in (0, 1))
    return pe.weight_norm(jnp.asarray(direction.T), jnp.asarray(gain.reshape(-1)))
