"""Accuracy and speed of rotary and sinusoidal positions, posembed_jax beside its peers.

    python benchmarks/positions.py [accuracy|speed|all] [--rounds 11] [--memory kept|default]

Needs nothing but the standard library itself: the environments of `make_peers.sh` do the work, one worker
process each, and this process asks them in turn. What is not installed is listed as such. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics

from harness import Environment, close, footnotes, forget, heading, missing_row, prepare, ratio, sample, spread, table

BASES = (10_000.0, 500_000.0, 1_000_000.0)
ENDS = {
    "1e3": 10**3,
    "3.2e4": 32_000,
    "1.28e5": 128_000,
    "1e6": 10**6,
    "1e7": 10**7,
    "1e8": 10**8,
    "2^31-1": 2**31 - 1,
}
SCORE_END = 10**6
DECODING_STEPS = 16
BULK_POSITIONS_PER_BASE = 55_000

ROTARY = {
    "posembed_jax": "jax",
    'posembed_jax, phase="float32"': "jax",
    "jnp.cos(position * frequency)": "jax",
    "flax nnx.RoPE": "jax",
    "equinox": "jax",
    "keras-hub RotaryEmbedding": "jax",
    "transformers Llama": "torch",
    "transformers Llama, bfloat16 activations": "torch",
    "x-transformers": "torch",
    "rotary-embedding-torch": "torch",
}
SINUSOIDAL = {
    "posembed_jax Sinusoidal": "jax",
    "keras-hub SinePositionEncoding": "jax",
    "keras-hub SinePositionEncoding, mixed_bfloat16": "jax",
}
TABLES = {"jnp.cos(position * frequency)": "jax", "posembed_jax": "jax"}
ROTATION = {
    "copy (q + 1, k + 1)": "jax",
    "posembed_jax, tables given": "jax",
    "split and concatenate, tables given": "jax",
    "x * cos + rotate_half(x) * sin, tables given": "jax",
    "flax nnx.RoPE, tables kept": "jax",
    "equinox, tables kept": "jax",
    "posembed_jax, from positions": "jax",
    "split and concatenate, from positions": "jax",
    "flax nnx.RoPE, from positions": "jax",
    "keras-hub, from positions": "jax",
    "torch, copy (q + 1, k + 1)": "torch",
    "transformers, eager, tables given": "torch",
    "transformers, torch.compile, tables given": "torch",
}
DECODING = {"posembed_jax": "jax", "split and concatenate": "jax"}


# ---------------------------------------------------------------- accuracy


def accuracy_table(environments, candidates: dict[str, str], base: float):
    """A row for each candidate: largest |error| in the 64 positions up to each end, then the score error."""
    columns = ["", *ENDS, f"score, moved to {SCORE_END:.0e}"]
    rows, reasons = [], []
    for name, environment in candidates.items():
        answer = environments[environment].ask(
            do="accuracy", name=name, base=base, ends=list(ENDS.values()), score_end=SCORE_END
        )
        if "missing" in answer:
            rows.append(missing_row(name, answer, len(columns), reasons))
            continue
        reasons += [(name, note) for note in answer["notes"]]
        errors = [*answer["errors"], answer["score"]]
        rows.append([name, *("n/a" if error is None else f"{error:.1e}" for error in errors)])
    table(columns, rows)
    footnotes(reasons)


def bulk_table(environments):
    """posembed_jax alone, at random int32 positions and both ends of int32."""
    rows = []
    for base in BASES:
        answer = environments["jax"].ask(do="bulk", base=base, count=BULK_POSITIONS_PER_BASE)
        if "missing" in answer:
            rows.append([f"{base:g}", answer["missing"], answer["why"]])
        else:
            rows.append([f"{base:g}", f"{answer['pairs']:,}", f"{answer['error']:.2e}"])
    table(["base", "pairs of position and frequency", "largest error of cos and sin"], rows)


def accuracy(environments):
    for base in BASES:
        heading(f"Rotary, base {base:g}, 128 channels: largest |error| of cos and sin")
        accuracy_table(environments, ROTARY, base)
    heading("Sinusoidal, base 10000, 128 channels: largest |error|")
    accuracy_table(environments, SINUSOIDAL, BASES[0])
    heading("posembed_jax over all of int32")
    bulk_table(environments)


# ---------------------------------------------------------------- speed


def measure(environments, task: str, candidates: dict[str, str], setting, rounds: int):
    """Returns, by name, the answers to `prepare` and the answers of all rounds to `time`."""
    prepared = prepare(environments, task, candidates, setting)
    return prepared, sample(environments, candidates, prepared, rounds)


def speed_table(environments, task, candidates, setting, rounds, reference):
    columns = ["", "ms, median [min-max]", f"x {reference}", "page faults"]
    prepared, samples = measure(environments, task, candidates, setting, rounds)
    rows, reasons = [], []
    for name, answer in prepared.items():
        if "missing" in answer:
            rows.append(missing_row(name, answer, len(columns), reasons))
            continue
        faults = statistics.median(sample["faults"] for sample in samples[name])
        ms = spread([sample["ms"] for sample in samples[name]])
        rows.append([name, ms, ratio(samples, name, reference), f"{faults:.0f}"])
    table(columns, rows)
    footnotes(reasons)
    forget(environments)


def decoding_table(environments, rounds: int):
    """Steps of one token: how often the step was traced in all rounds together, and the time of one step."""
    columns = ["", "traces", "us a step, median [min-max]", "x split and concatenate"]
    prepared, samples = measure(environments, "decoding", DECODING, DECODING_STEPS, rounds)
    rows, reasons = [], []
    for name, answer in prepared.items():
        if "missing" in answer:
            rows.append(missing_row(name, answer, len(columns), reasons))
            continue
        traces = environments[DECODING[name]].ask(do="traces", number=answer["number"])["traces"]
        microseconds = spread([1e3 * sample["ms"] / DECODING_STEPS for sample in samples[name]])
        rows.append([name, str(traces), microseconds, ratio(samples, name, "split and concatenate")])
    table(columns, rows)
    footnotes(reasons)
    forget(environments)


def speed(environments, rounds: int):
    for tokens in (8192, 131_072):
        heading(f"cos and sin of {tokens} positions, 64 frequencies, float32")
        speed_table(environments, "tables", TABLES, tokens, rounds, "jnp.cos(position * frequency)")
    for dtype in ("float32", "bfloat16"):
        heading(f"Rotating q and k, [1, 4096, 16, 128] each, {dtype}")
        speed_table(environments, "rotation", ROTATION, dtype, rounds, "copy (q + 1, k + 1)")
    heading(f"Decoding: q and k [1, 1, 16, 128], float32, {DECODING_STEPS} steps")
    decoding_table(environments, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["accuracy", "speed", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=11, help="how often everything is timed (default: 11)")
    parser.add_argument("--memory", choices=["kept", "default"], default="kept", help="see README.md")
    parser.add_argument("--verbose", action="store_true", help="show what the workers print")
    arguments = parser.parse_args()
    environments = {
        name: Environment(name, f"peers_{name}", arguments.memory, arguments.verbose) for name in ("jax", "torch")
    }
    for name, environment in environments.items():
        print(f"- {name}: {environment.about}")
    print(f"- {os.cpu_count()} cores, {arguments.rounds} rounds, memory {arguments.memory}")
    print(f"- load average at the start: {os.getloadavg()[0]:.1f}")
    if arguments.what in ("accuracy", "all"):
        accuracy(environments)
    if arguments.what in ("speed", "all"):
        speed(environments, arguments.rounds)
    print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")
    close(environments)


if __name__ == "__main__":
    main()
