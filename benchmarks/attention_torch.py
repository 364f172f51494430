"""What `attention.py` measures in the environment `torch`: scaled_dot_product_attention and FlexAttention. CPU only.

As in `attention_jax.py`: `TASKS[task][name](setting)` gives a function of no arguments, with `arrays()`.
"""

from __future__ import annotations

import functools
import math
import os

import attention_inputs
import numpy as np
import torch
import torch.nn.functional as F
from attention_inputs import HEADS, T5_BUCKETS, T5_MAX_DISTANCE

PACKAGES = ("torch",)

# What a call with the bias as an array needs, in copies of the float32 logits: measured with `attention.py memory`.
# In bfloat16 it is somewhat less. Without a gradient to the bias torch has a fused backward, hence ALiBi's 2.2.
COPIES = {
    "forward": {"t5": 2.2, "alibi": 2.2, "kerple": 2.2, "fire": 8.2},
    "forward+backward": {"t5": 4.7, "alibi": 2.2, "kerple": 6.7, "fire": 13.1},
}

torch.set_num_threads(os.cpu_count() or 1)


def device() -> str:
    return f"cpu, {torch.get_num_threads()} threads"


# ---------------------------------------------------------------- biases


def distances(length):
    """query position - key position, 0 where the key comes after: `[length, length]`."""
    positions = torch.arange(length)
    return (positions[:, None] - positions[None, :]).clamp(min=0)


def t5_bucket(distance):
    exact = T5_BUCKETS // 2
    log = torch.log(distance.clamp(min=1) / exact) / math.log(T5_MAX_DISTANCE / exact)
    return torch.where(distance < exact, distance, (exact + (log * exact).long()).clamp(max=T5_BUCKETS - 1))


def t5_values(params, distance):
    """`[N, ...]`; of nn.Embedding, indexing, gather and index_select the last is the fastest with its gradient."""
    return params["table"].index_select(1, t5_bucket(distance).flatten()).unflatten(1, distance.shape)


def t5_array(params, length):
    return t5_values(params, distances(length))


def alibi_array(params, length):
    return -torch.from_numpy(attention_inputs.alibi_slopes())[:, None, None] * distances(length)


def kerple_array(params, length):
    strength, rate = params["strength"][:, None, None], params["rate"][:, None, None]
    return -strength * torch.log1p(rate * distances(length))


def fire_array(params, length):
    rate, queries = params["rate"], torch.arange(length)[:, None]
    relative = torch.log1p(rate * distances(length)) / torch.log1p(rate * torch.maximum(queries, params["threshold"]))
    hidden = torch.relu(relative[..., None] * params["first"] + params["first_bias"])
    return (hidden @ params["last"].T).permute(2, 0, 1)


ARRAY = {"t5": t5_array, "alibi": alibi_array, "kerple": kerple_array, "fire": fire_array}


# ---------------------------------------------------------------- FlexAttention


def t5_score(params, length):
    """From one value for each head and distance, looked up once per call."""
    values = t5_values(params, torch.arange(length))
    return lambda score, batch, head, query, key: score + values[head, (query - key).clamp(min=0)]


def alibi_score(params, length):
    slopes = torch.from_numpy(attention_inputs.alibi_slopes())
    return lambda score, batch, head, query, key: score - slopes[head] * (query - key)


def kerple_score(params, length):
    strength, rate = params["strength"], params["rate"]

    def score_mod(score, batch, head, query, key):
        return score - strength[head] * torch.log1p(rate[head] * (query - key).clamp(min=0))

    return score_mod


def fire_score(params, length):
    raise NotImplementedError("FIRE's MLP would need an array inside a score_mod, which works on one logit at a time")


SCORE = {"t5": t5_score, "alibi": alibi_score, "kerple": kerple_score, "fire": fire_score}


def flex_attention(setting):
    """Compiled, with a causal block mask that is made once and kept."""
    from torch.nn.attention import flex_attention as flex

    length = setting["length"]
    mask = flex.create_block_mask(lambda b, h, query, key: query >= key, None, None, length, length, device="cpu")
    torch._dynamo.reset()  # it stops to compile after a few settings otherwise
    compiled = torch.compile(flex.flex_attention, dynamic=False)

    def attention(q, k, v, params):
        return compiled(q, k, v, score_mod=SCORE[setting["bias"]](params, length), block_mask=mask)

    return attention


# ---------------------------------------------------------------- scaled_dot_product_attention


def attention_with_array(setting):
    """The bias and the causal mask as one additive array, in the type of the query."""

    def attention(q, k, v, params):
        length = q.shape[-2]
        array = ARRAY[setting["bias"]](params, length).to(q.dtype)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=array.masked_fill(future, -math.inf)[None])

    return attention


def attention_without_bias(setting):
    """Always causal; what torch's fused attention does when there is nothing to add."""
    return lambda q, k, v, params: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def array_gib(task: str, setting) -> float:
    """What a call with the bias as an array needs, about."""
    return COPIES[task][setting["bias"]] * 4 * HEADS * setting["length"] ** 2 / 2**30


# ---------------------------------------------------------------- tasks

NAMES = {
    "torch SDPA, bias as an array": attention_with_array,
    "torch FlexAttention, compiled": flex_attention,
    "torch SDPA, no bias": attention_without_bias,
}


class Call:
    """A function of no arguments that returns tensors by name."""

    def __init__(self, function):
        self.function = function

    def __call__(self):
        return self.function()

    def arrays(self) -> dict[str, np.ndarray]:
        """As the other environment has them: `[1, S, N, D]` instead of torch's `[1, N, S, D]`."""
        arrays = {name: x.detach().float() for name, x in self().items()}
        return {name: (x.transpose(1, 2) if x.ndim == 4 else x).numpy() for name, x in arrays.items()}


def build(name, task, setting):
    """Tensors as in transformers' attention: `[1, N, S, D]`, views of `[1, S, N, D]`."""
    biased = "no bias" not in name
    if NAMES[name] is attention_with_array and (gib := array_gib(task, setting)) > setting["gib"]:
        raise MemoryError(f"would need about {gib:.1f} GiB")
    attention = NAMES[name](setting)
    dtype = getattr(torch, setting["dtype"])
    drawn = attention_inputs.heads(setting["length"])
    heads = {key: torch.from_numpy(x).to(dtype).transpose(1, 2) for key, x in drawn.items()}
    cotangent = heads.pop("cotangent")
    learned = attention_inputs.learned(setting["bias"]) if biased else {}
    params = {key: torch.from_numpy(x) for key, x in learned.items()}

    @torch.no_grad()
    def forward():
        return {"output": attention(*heads.values(), params)}

    def forward_and_backward():
        output = attention(*heads.values(), params)
        gradients = torch.autograd.grad(output, [*heads.values(), *params.values()], cotangent)
        names = [*heads, *(f"bias {key}" for key in params)]
        return {"output": output.detach(), **dict(zip(names, gradients, strict=True))}

    if task == "forward":
        return Call(forward)
    for x in (*heads.values(), *params.values()):
        x.requires_grad_()
    return Call(forward_and_backward)


TASKS = {
    task: {name: functools.partial(build, name, task) for name in NAMES} for task in ("forward", "forward+backward")
}
