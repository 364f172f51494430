"""What the benchmark commands share: environments, rounds, ratios and Markdown. Standard library alone.

A command starts one worker process for each environment and asks them in turn, so that candidates from different
environments are measured in the same minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What glibc's malloc does with large blocks that are freed. By default it hands some back to the system and fetches
# them anew for the next call, which then pays for a page fault every 4 KiB. "kept" keeps all of them, as one jitted
# program does; "returned" hands all of them back, so that what is resident between calls is what is in use.
MALLOC = {
    "kept": {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**28),
    },
    "returned": {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    "default": {},
}


def python_of(name: str) -> str:
    """The interpreter of an environment of `.peers/`, or this one if it is not there."""
    python = HERE / ".peers" / name / "bin" / "python"
    return str(python) if python.exists() else sys.executable


class Environment:
    """A worker process in one environment, which answers with the candidates of `module`."""

    def __init__(self, name: str, module: str, memory: str, verbose: bool):
        settings = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"} | MALLOC[memory]
        self.runs = False
        self.process = subprocess.Popen(
            [python_of(name), str(HERE / "worker.py"), module],
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


def forget(environments: dict[str, Environment]):
    for environment in environments.values():
        environment.ask(do="forget")


def close(environments: dict[str, Environment]):
    for environment in environments.values():
        environment.close()


# ---------------------------------------------------------------- rounds


def rotated(items: list, by: int) -> list:
    by %= max(1, len(items))
    return items[by:] + items[:by]


def prepare(environments, task: str, candidates: dict[str, str], setting) -> dict[str, dict]:
    """The answers of all candidates (name -> environment), by name, to the request to get ready for this task."""
    return {
        name: environments[environment].ask(do="prepare", task=task, name=name, setting=setting)
        for name, environment in candidates.items()
    }


def sample(environments, candidates: dict[str, str], prepared: dict[str, dict], rounds: int) -> dict[str, list[dict]]:
    """Times all that are ready once a round, a different one first each time; returns their answers, by name."""
    running = [name for name, answer in prepared.items() if "missing" not in answer]
    samples = {name: [] for name in running}
    for index in range(rounds):
        for name in rotated(running, index):
            time.sleep(0.01)  # so that the threads of the environment asked before are at rest
            environment = environments[candidates[name]]
            samples[name].append(environment.ask(do="time", number=prepared[name]["number"]))
    return samples


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} [{min(values):.3g}-{max(values):.3g}]"


def ratio(samples: dict[str, list[dict]], name: str, reference: str) -> str:
    """The median over rounds of the ratio within a round, so that what slows a whole round cancels."""
    if reference not in samples:
        return "n/a"
    rounds = zip(samples[name], samples[reference], strict=True)
    return f"{statistics.median(one['ms'] / other['ms'] for one, other in rounds):.2f}x"


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
