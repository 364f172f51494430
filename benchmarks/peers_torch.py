"""What `positions.py` measures in the environment `torch`: transformers, x-transformers and the like.

As in `peers_jax.py`: `TABLES[name](base)(positions) -> cos, sin` and `TASKS[task][name](setting)`. CPU only.
"""

from __future__ import annotations

import torch

DIM = 128
HEADS, TOKENS = 16, 4096
PACKAGES = ("torch", "transformers", "x-transformers", "rotary-embedding-torch")


def device() -> str:
    return "cpu"


# ---------------------------------------------------------------- tables, for accuracy


def llama_embedding(base):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_type": "default", "rope_theta": base}
    return LlamaRotaryEmbedding(LlamaConfig(head_dim=DIM, rope_parameters=parameters))


def transformers_tables(dtype):
    """`dtype` is the type of the activations, to which the tables are cast."""

    def build(base):
        embedding = llama_embedding(base)

        def tables(positions):
            cos, sin = embedding(torch.zeros(1, dtype=dtype), torch.from_numpy(positions).long()[None])
            return cos[0, :, : DIM // 2].double().numpy(), sin[0, :, : DIM // 2].double().numpy()

        return tables

    return build


def pairs(count):
    """`[count, DIM]` of (1, 0) pairs, which a rotation of neighbours turns into (cos, sin)."""
    return torch.tensor([1.0, 0.0]).repeat(count, DIM // 2)


def x_transformers_tables(base):
    from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

    embedding = RotaryEmbedding(DIM, base=base)

    def tables(positions):
        angles, scale = embedding(torch.from_numpy(positions))
        y = apply_rotary_pos_emb(pairs(len(positions))[None], angles, scale)[0]
        return y[:, 0::2].numpy(), y[:, 1::2].numpy()

    return tables


def rotary_embedding_torch_tables(base):
    """A new module for every call: its cache would be filled by the first one."""
    from rotary_embedding_torch import RotaryEmbedding

    def tables(positions):
        embedding = RotaryEmbedding(DIM, theta=base)
        y = embedding.rotate_queries_or_keys(pairs(len(positions))[None], offset=int(positions[0]))[0]
        return y[:, 0::2].numpy(), y[:, 1::2].numpy()

    return tables


TABLES = {
    "transformers Llama": transformers_tables(torch.float32),
    "transformers Llama, bfloat16 activations": transformers_tables(torch.bfloat16),
    "x-transformers": x_transformers_tables,
    "rotary-embedding-torch": rotary_embedding_torch_tables,
}


# ---------------------------------------------------------------- speed


def heads(dtype):
    """Random queries and keys as in transformers' attention: `[1, N, T, D]`, views of `[1, T, N, D]`."""
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, 1, TOKENS, HEADS, DIM, generator=generator).to(getattr(torch, dtype))
    return both[0].transpose(1, 2), both[1].transpose(1, 2)


@torch.no_grad()
def rotation_arguments(dtype):
    q, k = heads(dtype)
    cos, sin = llama_embedding(10_000.0)(q, torch.arange(TOKENS)[None])
    return q, k, cos, sin


def timed(function, *arguments):
    @torch.no_grad()
    def run():
        return function(*arguments)

    return run


def copy_time(dtype):
    return timed(lambda q, k: (q + 1, k + 1), *heads(dtype))


def transformers_time(dtype):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    return timed(apply_rotary_pos_emb, *rotation_arguments(dtype))


def transformers_compiled_time(dtype):
    """Compiles here, so that a machine without a C++ compiler is reported with its reason and not timed."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    run = timed(torch.compile(apply_rotary_pos_emb), *rotation_arguments(dtype))
    try:
        run()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotImplementedError(f"torch.compile failed: {reason}") from error
    return run


TASKS = {
    "rotation": {
        "torch, copy (q + 1, k + 1)": copy_time,
        "transformers, eager, tables given": transformers_time,
        "transformers, torch.compile, tables given": transformers_compiled_time,
    },
}
