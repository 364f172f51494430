"""Causal attention with a position bias: time and memory of posembed_jax beside its peers.

    python benchmarks/attention.py [time|memory|all] [--lengths 1024,2048,4096] [--dtypes float32,bfloat16]
        [--biases t5,alibi,kerple,fire] [--rounds 5] [--gib 3] [--memory kept] [--write DIR] [--quick]

8 heads of 64 channels, batch 1, forward and forward+backward; the gradient is to query, key, value and what the bias
has learned. Every result is compared with the reference before it is timed. Needs nothing but the standard library
itself, as `positions.py`, and prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import (
    HERE,
    Environment,
    close,
    footnotes,
    forget,
    heading,
    prepare,
    python_of,
    ratio,
    sample,
    spread,
    table,
)

OURS = "posembed_jax xla"
LIMIT = "the matmuls alone, tile by tile"
CANDIDATES = {
    OURS: "jax",
    "posembed_jax reference": "jax",
    "jax.nn.dot_product_attention, bias as an array": "jax",
    "einsum and softmax, bias as an array": "jax",
    "tokamax xla, bias as an array": "jax",
    "tokamax xla_chunked, bias as an array": "jax",
    "torch SDPA, bias as an array": "torch",
    "torch FlexAttention, compiled": "torch",
    "jax.nn.dot_product_attention, no bias": "jax",
    "torch SDPA, no bias": "torch",
    LIMIT: "jax",
}
TASKS = ("forward", "forward+backward")
BIASES = {"t5": "T5", "alibi": "ALiBi", "kerple": "KERPLE", "fire": "FIRE"}
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
DEFAULTS = {"lengths": [1024, 2048, 4096], "dtypes": list(TOLERANCE), "biases": list(BIASES), "rounds": 5}
QUICK = {"lengths": [256, 512], "dtypes": ["float32"], "biases": ["t5"], "rounds": 2}


def start(arguments, memory: str) -> dict[str, Environment]:
    return {name: Environment(name, f"attention_{name}", memory, arguments.verbose) for name in ("jax", "torch")}


def title(setting) -> str:
    return f"{BIASES[setting['bias']]}, {setting['dtype']}"


# ---------------------------------------------------------------- time


def write_truths(environments, setting, folder: str) -> dict[bool, str]:
    """Files with what candidates with and without a bias are compared with; none where jax is not installed."""
    truths = {biased: str(Path(folder) / f"{biased}.npz") for biased in (True, False)}
    requests = [
        environments["jax"].ask(do="write_truth", setting=setting, biased=biased, path=path)
        for biased, path in truths.items()
    ]
    return {} if any("missing" in answer for answer in requests) else truths


def check(environments, prepared: dict[str, dict], truths: dict[bool, str], tolerance: float):
    """Adds to each answer the error of that candidate, and takes those out that disagree with the reference."""
    for name, answer in prepared.items():
        if "missing" in answer or name == LIMIT or not truths:
            continue
        truth = truths["no bias" not in name]
        answer |= environments[CANDIDATES[name]].ask(do="compare", number=answer["number"], truth=truth)
        if not all(error <= tolerance for error in answer.get("error", {}).values()):  # also where it is NaN
            answer |= {"missing": "wrong", "why": f"further than {tolerance} from the reference, so it was not timed"}


def measure_time(environments, setting, rounds: int) -> dict[str, dict[str, dict]]:
    """By task and name: `ms` of all rounds, `ratio`, `error` and `temp_bytes`, or why it is missing."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        truths = write_truths(environments, setting, folder)
        for task in TASKS:
            results[task] = prepare(environments, task, CANDIDATES, setting)
            check(environments, results[task], truths, TOLERANCE[setting["dtype"]])
            samples = sample(environments, CANDIDATES, results[task], rounds)
            died = {name: answer for name, answers in samples.items() for answer in answers if "missing" in answer}
            samples = {name: answers for name, answers in samples.items() if name not in died}
            for name, answer in results[task].items():
                answer |= died.get(name, {})
                if name in samples:
                    answer |= {"ms": [one["ms"] for one in samples[name]], "ratio": ratio(samples, name, OURS)}
            forget(environments)
    return results


def mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.3g}" if count < 2**30 else f"{count / 2**20:.0f}"


def time_cells(answer: dict, error: str) -> list[str]:
    """Time, ratio, error and compiled memory of one candidate in one task."""
    errors = answer.get("error", {})
    cells = ["", "", f"{errors[error]:.0e}" if error in errors else "", mebibytes(answer.get("temp_bytes"))]
    return (
        [answer["missing"], *cells[1:]] if "missing" in answer else [spread(answer["ms"]), answer["ratio"], *cells[2:]]
    )


def time_table(results: dict[str, dict[str, dict]]):
    columns = [
        *("", "forward, ms", f"x {OURS}", "error", "temp MiB"),
        *("forward+backward, ms", f"x {OURS}", "error of gradients", "temp MiB"),
    ]
    forward, both = (results[task] for task in TASKS)
    table(
        columns, [[name, *time_cells(forward[name], "output"), *time_cells(both[name], "gradient")] for name in forward]
    )
    reasons = [(name, answer["why"]) for task in TASKS for name, answer in results[task].items() if "missing" in answer]
    footnotes([(name, why) for name, why in reasons if why])


def records(setting, results: dict[str, dict[str, dict]]) -> list[dict]:
    """One for each candidate and task, for the picture."""
    kept = ("ms", "peak_bytes", "temp_bytes")
    return [
        {**setting, "task": task, "name": name} | {key: answer[key] for key in kept if key in answer}
        for task, answers in results.items()
        for name, answer in answers.items()
    ]


def run_time(arguments, setting) -> list[dict]:
    """Fresh workers for each table: one that runs out of memory then leaves a gap in one table."""
    environments = start(arguments, arguments.memory)
    heading(f"{title(setting)}, S = {setting['length']}")
    results = measure_time(environments, setting, arguments.rounds)
    time_table(results)
    close(environments)
    return records(setting, results)


# ---------------------------------------------------------------- memory


def peak(arguments, task: str, name: str, setting) -> dict:
    """How far one call raises the resident memory, in a process of its own."""
    environment = Environment(CANDIDATES[name], f"attention_{CANDIDATES[name]}", "returned", arguments.verbose)
    answer = environment.ask(do="prepare", task=task, name=name, setting=setting)
    if "missing" not in answer:
        answer |= environment.ask(do="peak", number=answer["number"])
    environment.close()
    return answer


def run_memory(arguments, settings: list[dict]) -> list[dict]:
    """A table for each task; `settings` differ in their length alone."""
    found = []
    for task in TASKS:
        heading(f"{title(settings[0])}, {task}: peak memory above the inputs, MiB (compiled temp MiB)")
        rows, reasons = [], []
        for name in CANDIDATES:
            answers = [peak(arguments, task, name, setting) for setting in settings]
            cells = []
            for setting, answer in zip(settings, answers, strict=True):
                found += records(setting, {task: {name: answer}})
                cells.append(memory_cell(answer))
                reasons += [(name, answer["why"])] if answer.get("why") else []
            rows.append([name, *cells])
        table(["", *(f"S = {setting['length']}" for setting in settings)], rows)
        footnotes(reasons)
    return found


def memory_cell(answer: dict) -> str:
    if "missing" in answer:
        return answer["missing"]
    compiled = f" ({mebibytes(answer['temp_bytes'])})" if "temp_bytes" in answer else ""
    return mebibytes(answer["peak_bytes"]) + compiled


# ---------------------------------------------------------------- the command


class Both(io.TextIOBase):
    """Standard output that keeps what it was given."""

    def __init__(self, stream):
        self.stream, self.kept = stream, io.StringIO()

    def write(self, text: str) -> int:
        self.kept.write(text)
        return self.stream.write(text)

    def flush(self):
        self.stream.flush()


def run(arguments) -> list[dict]:
    environments = start(arguments, "default")
    for name, environment in environments.items():
        print(f"- {name}: {environment.about}")
    close(environments)
    print("- batch 1, 8 heads of 64 channels, causal; query, key and value [1, S, 8, 64]")
    print(f"- {os.cpu_count()} cores, {arguments.rounds} rounds, load average {os.getloadavg()[0]:.1f} at the start")
    found = []
    for bias in arguments.biases:
        for dtype in arguments.dtypes:
            settings = [
                {"bias": bias, "dtype": dtype, "length": length, "gib": arguments.gib} for length in arguments.lengths
            ]
            if arguments.what in ("time", "all"):
                found += [record for setting in settings for record in run_time(arguments, setting)]
            if arguments.what in ("memory", "all"):
                found += run_memory(arguments, settings)
    print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")
    return found


def write(folder: Path, command: str, text: str, found: list[dict]):
    """The tables, the numbers, and a picture of them, which the environment `jax` draws."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attention.md").write_text(f"`{command}`\n\n{text}")
    (folder / "attention.json").write_text(json.dumps(found, indent=1))
    picture = [
        python_of("jax"),
        str(HERE / "picture.py"),
        str(folder / "attention.json"),
        str(folder / "attention.png"),
    ]
    if subprocess.run(picture, check=False).returncode:
        print("attention.png was not drawn: see the message above", file=sys.stderr)


def parse() -> argparse.Namespace:
    def several(kind, choices=None):
        def parse(text: str) -> list:
            values = [kind(word) for word in text.split(",")]
            if wrong := [value for value in values if choices and value not in choices]:
                raise argparse.ArgumentTypeError(f"{wrong[0]}: expected some of {', '.join(choices)}")
            return values

        return parse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["time", "memory", "all"], default="all")
    parser.add_argument("--lengths", type=several(int), help="1024,2048,4096 if not given")
    parser.add_argument("--dtypes", type=several(str, TOLERANCE), help="float32,bfloat16 if not given")
    parser.add_argument("--biases", type=several(str, BIASES), help="t5,alibi,kerple,fire if not given")
    parser.add_argument("--rounds", type=int, help="how often everything is timed; 5 if not given")
    parser.add_argument("--gib", type=float, default=3.0, help="skip what would need more memory (default: 3)")
    parser.add_argument("--memory", choices=["kept", "default"], default="kept", help="see README.md")
    parser.add_argument("--write", type=Path, metavar="DIR", help="also write attention.md, .json and .png there")
    parser.add_argument("--verbose", action="store_true", help="show what the workers print")
    parser.add_argument("--quick", action="store_true", help="does it work? T5, float32, 256 and 512 tokens, 2 rounds")
    arguments = parser.parse_args()
    for name, value in (QUICK if arguments.quick else DEFAULTS).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def command(arguments) -> str:
    """What to type for the same run, without where it is written to."""
    lists = (f"--{name} {','.join(map(str, getattr(arguments, name)))}" for name in ("lengths", "dtypes", "biases"))
    numbers = f"--rounds {arguments.rounds} --gib {arguments.gib:g} --memory {arguments.memory}"
    return f"python benchmarks/attention.py {arguments.what} {' '.join(lists)} {numbers}"


def main():
    arguments = parse()
    output = Both(sys.stdout)
    with contextlib.redirect_stdout(output):
        found = run(arguments)
    if arguments.write:
        write(arguments.write, command(arguments), output.kept.getvalue(), found)


if __name__ == "__main__":
    main()
