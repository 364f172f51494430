"""One process of an environment: takes requests as JSON lines on standard input, answers on standard output.

    python benchmarks/worker.py peers_jax

`positions.py` and `attention.py` start one for each environment and ask them in turn.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import oracle

WINDOW = 64
SAMPLE_MS = 20.0
WARM_UP_CALLS, WARM_UP_SECONDS = 3, 1.0


def installed_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def window(end: int) -> np.ndarray:
    """The `WINDOW` positions that end at `end`."""
    return np.arange(end - WINDOW + 1, end + 1, dtype=np.int64).astype(np.int32)


def page_faults() -> int:
    """How often this process so far touched memory that the system first had to give it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def highest_resident_bytes() -> int:
    """The most memory this process had at once, since it began or since `reset_highest`."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_highest():
    """Lets the most be what is resident now, else compiling a call would hide what the call itself needs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise NotImplementedError(f"the highest memory cannot be reset here ({error})") from error


def warm_up(run):
    """A few calls, fewer of what takes long."""
    start = time.perf_counter()
    for _ in range(WARM_UP_CALLS):
        run()
        if time.perf_counter() - start > WARM_UP_SECONDS:
            return


def float64_tables(tables, positions):
    return tuple(np.asarray(table).astype(np.float64) for table in tables(positions))


def scores(cos, sin, q, k):
    """`[query, key]` scores over sqrt(DIM) of complex q and k `[WINDOW, DIM / 2]`, rotated by the tables."""
    turn = cos + 1j * sin
    return ((q * turn) @ (k * turn).conj().T).real / np.sqrt(2 * q.shape[1])


def random_heads(count):
    """q and k with normally distributed real and imaginary parts: complex `[WINDOW, count]`."""
    parts = np.random.default_rng(0).normal(size=(2, 2, WINDOW, count))
    return parts[0] + 1j * parts[1]


class Worker:
    """Answers requests with the candidates of one module; every public method is a request."""

    def __init__(self, module):
        self.module = module
        self.prepared = []

    def about(self):
        versions = ", ".join(f"{package} {installed_version(package)}" for package in self.module.PACKAGES)
        return {"about": f"{self.module.device()}, Python {sys.version.split()[0]}, {versions}"}

    def accuracy(self, name, base, ends, score_end):
        """Largest error of cos and sin in the window at each end, and of scores moved there from 0."""
        tables = self.module.TABLES[name](base)
        notes = []

        def attempt(measure, end):
            try:
                return measure(tables, base, end)
            except NotImplementedError as reason:
                notes.append(str(reason))
                return None

        errors = [attempt(self._table_error, end) for end in ends]
        return {"errors": errors, "score": attempt(self._score_error, score_end), "notes": sorted(set(notes))}

    def _table_error(self, tables, base, end):
        truth = oracle.cos_sin(window(end), oracle.frequencies(self.module.DIM, base))
        ours = float64_tables(tables, window(end))
        return max(float(np.abs(a - b).max()) for a, b in zip(ours, truth, strict=True))

    def _score_error(self, tables, base, end):
        q, k = random_heads(self.module.DIM // 2)
        here = scores(*float64_tables(tables, window(WINDOW - 1)), q, k)
        there = scores(*float64_tables(tables, window(end)), q, k)
        return float(np.abs(here - there).max())

    def bulk(self, base, count):
        return self.module.bulk(base, count)

    def prepare(self, task, name, setting):
        """Builds and warms up a candidate, and settles how many calls make one sample; returns its number."""
        run = self.module.TASKS[task][name](setting)
        warm_up(run)
        start = time.perf_counter()
        run()
        ms = 1e3 * (time.perf_counter() - start)
        self.prepared.append((run, max(1, min(200, round(SAMPLE_MS / ms)))))
        about = {"temp_bytes": run.temp_bytes} if hasattr(run, "temp_bytes") else {}
        return {"number": len(self.prepared) - 1, **about}

    def time(self, number):
        """Milliseconds and page faults of one call: the means over the calls of one sample."""
        run, calls = self.prepared[number]
        faults, start = page_faults(), time.perf_counter()
        for _ in range(calls):
            run()
        ms = 1e3 * (time.perf_counter() - start) / calls
        return {"ms": ms, "faults": (page_faults() - faults) / calls}

    def traces(self, number):
        return {"traces": self.prepared[number][0].traces}

    def write_truth(self, **request):
        """Writes the arrays that candidates are compared with to a file."""
        self.module.write_truth(**request)
        return {}

    def compare(self, number, truth):
        """How far the candidate's output and gradients are from those in the file `truth`.

        "output" is the largest |difference|. "gradient" is the same relative to the largest true value of that
        gradient, for the worst of them. What a bias has learned counts as one gradient: that of a single number is
        a sum that nearly cancels, and would be judged by its rounding.
        """
        found, differences, largest = self.prepared[number][0].arrays(), {}, {}
        with np.load(truth) as true:
            for name, x in found.items():
                if x.shape != true[name].shape:
                    raise ValueError(f"{name} is {list(x.shape)}, but the true one {list(true[name].shape)}")
                kind = name.split()[0]
                differences.setdefault(kind, []).append(np.abs(x - true[name]).max())
                largest.setdefault(kind, []).append(np.abs(true[name]).max())
        error = {"output": float(np.max(differences.pop("output")))}
        if differences:
            error["gradient"] = float(
                np.max([np.max(differences[kind]) / np.max(largest[kind]) for kind in differences])
            )
        return {"error": error}

    def peak(self, number):
        """How far the resident memory rises in one call, above what was resident before it."""
        run = self.prepared[number][0]
        gc.collect()
        reset_highest()
        before = highest_resident_bytes()
        run()
        return {"peak_bytes": highest_resident_bytes() - before}

    def forget(self):
        self.prepared.clear()
        return {}


def answer(worker, request):
    try:
        return getattr(worker, request.pop("do"))(**request)
    except ImportError as error:
        return {"missing": "not installed", "why": str(error).splitlines()[0]}
    except NotImplementedError as error:
        return {"missing": "n/a", "why": str(error)}
    except MemoryError as error:
        return {"missing": f"skipped: {error}", "why": ""}
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return {"missing": "failed", "why": f"{type(error).__name__}: {first_line}"}


def main():
    """Answers go to the real standard output; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(importlib.import_module(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
