"""The other side: tiny models of transformers with random weights and eager attention, and what their layers put out.

transformers makes its angles in float32, whatever the dtype of a model: at position p they are wrong by up to
p * 2^-24. So each model runs twice. In float32 it is what people run, and is matched within that error; with float32
replaced by float64 it is what they mean, and is matched within the rounding of float32 in the layers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from layers import Weights
from models import Model, Outputs

torch.set_num_threads(1)  # the tensors are small

ROUNDING = 1e-5  # of float32 in two layers, over the root mean square; 5e-6 was seen
ANGLES = 4 * 2.0**-24  # for each position: of the product and of its frequency, in the query and in the key


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Within, what transformers calls float32 is of this dtype."""
    with contextlib.ExitStack() as stack:
        if dtype == "float64":
            for owner, name, value in (
                (torch, "float", torch.float64),
                (torch, "float32", torch.float64),
                (torch.Tensor, "float", torch.Tensor.double),
            ):
                stack.enter_context(mock.patch.object(owner, name, value))
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        yield


def tiny(kind: Any, config: Any) -> Any:
    """A model with weights of variance 1 / inputs, so that its heads choose; norms and biases are random as well."""
    model = kind._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            draw = rng.standard_normal(parameter.shape, np.float32)
            near = parameter.detach().numpy() + 0.2 * draw
            fan_in = math.prod(parameter.shape[1:])
            parameter.data = tensor(near if parameter.ndim == 1 else draw / np.sqrt(fan_in, dtype=np.float32))
    return model.requires_grad_(False)


def weights(model: Any) -> Weights:
    return Weights({name: jnp.asarray(x.numpy().astype(np.float32)) for name, x in model.state_dict().items()})


def tensor(x: Any) -> torch.Tensor:
    """An array of ours, in the dtypes of torch."""
    x = torch.from_numpy(np.array(x))
    return x.to(torch.float32) if x.is_floating_point() else x.long()


class Calls:
    """What the layers put out in each call of a model: `calls[0]` is (attention, hidden) of the first."""

    def __init__(self, layers: int):
        self.layers = layers
        self.attention: list[np.ndarray] = []
        self.hidden: list[np.ndarray] = []

    def __getitem__(self, call: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        span = slice(call * self.layers, (call + 1) * self.layers)
        return self.attention[span], self.hidden[span]

    def __len__(self) -> int:
        return len(self.hidden) // self.layers


def keep_in(kept: list[np.ndarray]) -> Callable[..., None]:
    return lambda module, given, out: kept.append((out[0] if isinstance(out, tuple) else out).numpy())


@contextlib.contextmanager
def recorded(model: Any, ours: Model) -> Iterator[Calls]:
    calls = Calls(len(ours.attentions))
    with contextlib.ExitStack() as hooks:
        for i in range(calls.layers):
            layer = model.get_submodule(f"{ours.layers}.{i}")
            projection = layer.get_submodule(f"{ours.block.attention}.{ours.block.out}")
            for module, kept in ((projection, calls.attention), (layer, calls.hidden)):
                hooks.callback(module.register_forward_hook(keep_in(kept)).remove)
        yield calls


def generate(model: Any, steps: int, **inputs: Any) -> Any:
    return model.generate(
        **inputs, max_new_tokens=steps, do_sample=False, output_logits=True, return_dict_in_generate=True
    )


def tolerance(dtype: str, positions: Any) -> float:
    return ROUNDING + (ANGLES * float(np.max(positions)) if dtype == "float32" else 0.0)


def assert_same(ours: Outputs, theirs: tuple[list[np.ndarray], list[np.ndarray]], real: Any, within: float) -> None:
    """The attention and the output of every layer, where real: `[B, T]`, or ... for all."""
    attention, hidden = theirs
    assert len(ours.hidden) == len(hidden)
    ours = jax.tree.map(np.asarray, ours)
    for i in range(len(hidden)):
        assert_close(f"attention {i}", ours.attention[i][real], attention[i][real], within)
        assert_close(f"layer {i}", ours.hidden[i][real], hidden[i][real], within)


def assert_close(name: str, got: Any, want: Any, within: float) -> None:
    """The largest difference, over the root mean square."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, name
    error = np.abs(got - want).max() / np.sqrt(np.mean(want**2))
    assert error < within, f"{name}: {error:.1e} of its root mean square; at most {within:.1e}"
