"""Accuracy and speed of rotary and sinusoidal positions, posembed_jax beside its peers.

    python benchmarks/positions.py [accuracy|speed|all] [--rounds 11] [--memory kept|default]

Needs nothing but the standard library itself: the environments of `make_peers.sh` do the work, one worker
process each, and this process asks them in turn. What is not installed is listed as such. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
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

# glibc hands a large block back to the system when it is freed and fetches it anew for the next call, which
# then pays for a page fault every 4 KiB. With these it keeps what it has, as one jitted program does.
KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}

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


class Environment:
    """A worker process in one environment of `.peers/`, or with this Python if it is not there."""

    def __init__(self, name: str, memory: str, verbose: bool):
        python = HERE / ".peers" / name / "bin" / "python"
        settings = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
        if memory == "kept":
            settings |= KEPT_MEMORY
        self.runs = False
        self.process = subprocess.Popen(
            [str(python) if python.exists() else sys.executable, str(HERE / "worker.py"), f"peers_{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
            env={**settings, **os.environ, "PYTHONPATH": str(HERE.parent)},
        )
        answer = self.ask(do="about")
        self.runs = "about" in answer
        self.about = answer["about"] if self.runs else f"not installed ({answer['why']})"

    def ask(self, **request) -> dict:
        """The answer, or {"missing": ..., "why": ...}, also when the worker could not start or died."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            if self.runs:
                return {"missing": "failed", "why": "the worker process of this environment died"}
            return {"missing": "not installed", "why": "bash benchmarks/make_peers.sh makes this environment"}

    def close(self):
        self.process.communicate()


# ---------------------------------------------------------------- printing


def heading(text: str):
    print(f"\n## {text}\n")


def table(columns: list[str], rows: list[list[str]]):
    for row in [columns, ["---"] * len(columns), *rows]:
        print("| " + " | ".join(row) + " |", flush=True)


def footnotes(reasons: list[tuple[str, str]]):
    """Every reason once, with the names of those it holds for."""
    for reason in dict.fromkeys(why for _, why in reasons):
        names = dict.fromkeys(name for name, why in reasons if why == reason)
        print(f"\n- {'; '.join(names)}: {reason}")


def missing_row(name: str, answer: dict, width: int, reasons: list[tuple[str, str]]) -> list[str]:
    reasons.append((name, answer["why"]))
    return [name, answer["missing"], *["" for _ in range(width - 2)]]


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


def rotated(items: list, by: int) -> list:
    by %= max(1, len(items))
    return items[by:] + items[:by]


def measure(environments, task: str, candidates: dict[str, str], setting, rounds: int):
    """Prepares every candidate, then times them all once a round, a different one first each time.

    Returns, by name, the answers to `prepare` and the answers of all rounds to `time`.
    """
    prepared = {
        name: environments[environment].ask(do="prepare", task=task, name=name, setting=setting)
        for name, environment in candidates.items()
    }
    running = [name for name, answer in prepared.items() if "missing" not in answer]
    samples = {name: [] for name in running}
    for index in range(rounds):
        for name in rotated(running, index):
            time.sleep(0.01)  # so that the threads of the environment asked before are at rest
            environment = environments[candidates[name]]
            samples[name].append(environment.ask(do="time", number=prepared[name]["number"]))
    return prepared, samples


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} [{min(values):.3g}-{max(values):.3g}]"


def ratio(samples: dict[str, list[dict]], name: str, reference: str) -> str:
    """The median over rounds of the ratio within a round, so that what slows a whole round cancels."""
    if reference not in samples:
        return "n/a"
    rounds = zip(samples[name], samples[reference], strict=True)
    return f"{statistics.median(one['ms'] / other['ms'] for one, other in rounds):.2f}x"


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


def forget(environments):
    for environment in environments.values():
        environment.ask(do="forget")


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
    environments = {name: Environment(name, arguments.memory, arguments.verbose) for name in ("jax", "torch")}
    for name, environment in environments.items():
        print(f"- {name}: {environment.about}")
    print(f"- {os.cpu_count()} cores, {arguments.rounds} rounds, memory {arguments.memory}")
    print(f"- load average at the start: {os.getloadavg()[0]:.1f}")
    if arguments.what in ("accuracy", "all"):
        accuracy(environments)
    if arguments.what in ("speed", "all"):
        speed(environments, arguments.rounds)
    print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")
    for environment in environments.values():
        environment.close()


if __name__ == "__main__":
    main()
