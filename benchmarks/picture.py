"""Draws what `attention.py --write` found: time and memory over the length, a line for each candidate.

    python benchmarks/picture.py attention.json attention.png [bias] [dtype]

The first bias and dtype of the file, unless they are named. Needs matplotlib.
"""

from __future__ import annotations

import json
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

NAMES = {"t5": "T5's bias", "alibi": "ALiBi", "kerple": "KERPLE", "fire": "FIRE"}
TASKS = ("forward", "forward+backward")
# Colour, line and marker: one colour for each library, dashes for what has no bias, dots for the limit.
STYLES = {
    "posembed_jax xla": ("#c1121f", "-", "o"),
    "posembed_jax reference": ("#e5989b", "-", "s"),
    "jax.nn.dot_product_attention, bias as an array": ("#1d4ed8", "-", "s"),
    "einsum and softmax, bias as an array": ("#0e7490", "-", "^"),
    "tokamax xla, bias as an array": ("#7c3aed", "-", "v"),
    "tokamax xla_chunked, bias as an array": ("#c084fc", "-", "D"),
    "torch SDPA, bias as an array": ("#b45309", "-", "s"),
    "torch FlexAttention, compiled": ("#f59e0b", "-", "P"),
    "jax.nn.dot_product_attention, no bias": ("#1d4ed8", "--", None),
    "torch SDPA, no bias": ("#b45309", "--", None),
    "the matmuls alone, tile by tile": ("#555555", ":", None),
}
PANELS = {
    "ms": "milliseconds",
    "peak_bytes": "peak memory above the inputs, MiB",
    "temp_bytes": "compiled temp memory, MiB",
}


def value(record: dict, key: str) -> float | None:
    """What one record puts on the axis `key`, or nothing, also where a logarithmic axis has no place for it."""
    if key not in record:
        return None
    number = statistics.median(record["ms"]) if key == "ms" else record[key] / 2**20
    return number if number > 0 else None


def line(records: list[dict], name: str, task: str, key: str) -> list[tuple[int, float]]:
    chosen = [record for record in records if record["name"] == name and record["task"] == task]
    points = {record["length"]: value(record, key) for record in chosen if value(record, key) is not None}
    return sorted(points.items())


def panel(axes, records: list[dict], task: str, key: str):
    for name, (colour, dashes, marker) in STYLES.items():
        if points := line(records, name, task, key):
            ours = name == "posembed_jax xla"
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=5,
                linewidth=2.6 if ours else 1.4,
                zorder=3 if ours else 2,
                label=name,
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({record["length"] for record in records}))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(records: list[dict], bias: str, dtype: str, path: str):
    """A column for each task, a row for each of time and memory that was measured."""
    records = [record for record in records if record["bias"] == bias and record["dtype"] == dtype]
    measured = {key for record in records for key in PANELS if key in record}
    keys = [key for key in PANELS if key in measured and not (key == "temp_bytes" and "peak_bytes" in measured)]
    figure, grid = plt.subplots(
        len(keys), len(TASKS), figsize=(10, 1.2 + 3.6 * len(keys)), sharex=True, sharey="row", squeeze=False
    )
    for row, key in zip(grid, keys, strict=True):
        for axes, task in zip(row, TASKS, strict=True):
            panel(axes, records, task, key)
        row[0].set_ylabel(PANELS[key])
    for axes, task in zip(grid[0], TASKS, strict=True):
        axes.set_title(task)
    for axes in grid[-1]:
        axes.set_xlabel("sequence length")
    lines = {text: handle for axes in grid.flat for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    lines = {name: lines[name] for name in STYLES if name in lines}
    figure.suptitle(f"Causal attention with {NAMES[bias]}, {dtype}, 8 heads of 64 channels, CPU")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2, frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=150)


def main():
    source, path, *wanted = sys.argv[1:]
    with open(source) as file:
        records = json.load(file)
    bias, dtype = (wanted + [records[0]["bias"], records[0]["dtype"]][len(wanted) :])[:2]
    draw(records, bias, dtype, path)


if __name__ == "__main__":
    main()
