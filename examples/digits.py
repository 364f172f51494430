"""Positions of a small vision transformer, at resolutions that it was not trained at.

The images are the 1,797 handwritten digits of scikit-learn. A patch is 2 x 2 pixels from a place on; a grid of 8 x 8
places in training, and of 12 x 12 and 16 x 16 in evaluation, covers the image. What is in a patch is the same at every
resolution; that there are more of them, nearer to each other, only their positions tell. Each scheme in its own way:

    none        nothing tells: the digit is a bag of patches
    learned     a table of 8 x 8 rows, resized to the new grid
    sinusoidal  half of the channels for the row, half for the column; fractional, in units of the training grid
    rope        queries and keys turn by row and column, in the same units
    swin        a learned bias of each offset between two patches; its table is resized

The same trained models are also evaluated with rows and columns counted, 0 to 11 and 0 to 15, which were 0 to 7.

    python examples/digits.py  # two minutes on two CPU cores

It writes `results.json` and `digits.png` to --output.
"""

import argparse
import functools
import json
import pathlib
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import rich.table
import sklearn.datasets
from jax import lax
from matplotlib.figure import Figure

import posembed_jax as pe
from posembed_jax import linen

TRAINED = 8  # patches along an axis; evaluation has --grids
FEATURES, HEADS, LAYERS, BATCH = 32, 2, 2, 64
SCHEMES = ("none", "learned", "sinusoidal", "rope", "swin")
FRACTIONAL = ("sinusoidal", "rope")


# Data


def read_digits():
    """Images `[images, 8, 8]` between 0 and 1 and labels, of 4 in 5 for training and the rest held out."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order].reshape(-1, 8, 8).astype(np.float32) / 16, labels[order].astype(np.int32)
    held_out = np.arange(len(labels)) % 5 == 0
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def patches(images, grid):
    """Images `[B, 8, 8]` -> `[B, grid * grid, 4]`: the 2 x 2 pixels from each place of a grid over the image on."""
    padded = jnp.pad(images, ((0, 0), (0, 1), (0, 1)))
    around = jnp.stack([padded[:, y : y + 8, x : x + 8] for y in range(2) for x in range(2)], axis=-1)
    matrix = pe.resize_matrix(8, grid, method="bilinear")
    return jnp.einsum("yh,bhwp,xw->byxp", matrix, around, matrix).reshape(-1, grid * grid, 4)


# Schemes: where each acts, and the positions that it takes.


def places(grid, counted):
    """Where the patches of a grid stand, `[T, 2]`: counted, or in units of the training grid."""
    counts = pe.positions.grid((grid, grid))
    return counts if counted else (counts + 0.5) * TRAINED / grid - 0.5


class Grid(nn.Module):
    """Sinusoids of the row and of the column, `[T, FEATURES]`."""

    def __call__(self, positions):
        scheme = pe.Sinusoidal(features=FEATURES // 2, base=100.0, fractional=True).bind({})
        return jnp.concatenate([scheme(positions[:, 0]), scheme(positions[:, 1])], axis=-1)


def scheme_of(name, grid, counted):
    """Where it acts (added to the patches, rotation, bias or nowhere), its module, and its positions on this grid."""
    dim = FEATURES // HEADS
    match name:
        case "none":
            return None, None, None
        case "learned":
            table = pe.LearnedPositions(length=grid**2, features=FEATURES)
            return "additive", linen.Scheme(table, name="scheme"), pe.positions.arange(grid**2)
        case "sinusoidal":
            return "additive", Grid(), places(grid, counted)
        case "rope":  # a quarter of the channels for each coordinate's cosines, and as many for its sines
            axes = pe.Axes.blocks(axes=2, count=dim // 4)
            rope = pe.RoPE(dim=dim, layout="half", base=100.0, axes=axes, fractional=True)
            return "rotation", linen.Scheme(rope), places(grid, counted)
        case "swin":
            bias = pe.SwinBias(heads=HEADS, window=(grid, grid), stddev=1.0)
            return "bias", linen.Scheme(bias, name="scheme"), pe.positions.grid((grid, grid))


def resized(name, params, grid):
    """The learned table for another grid; all else is the same at every resolution."""
    if "scheme" not in params:
        return params
    resize = {"learned": pe.resize_table, "swin": pe.resize_bias_table}[name]
    table = resize(params["scheme"]["table"], (TRAINED, TRAINED), (grid, grid), method="bicubic")
    return {**params, "scheme": {"table": table}}


# The model


class ViT(nn.Module):
    """Patches -> logits of the ten digits. The scheme is all that differs between runs."""

    name_of_scheme: str
    grid: int
    counted: bool = False

    @nn.compact
    def __call__(self, x):
        place, scheme, positions = scheme_of(self.name_of_scheme, self.grid, self.counted)
        inside = {place: scheme} if place in ("rotation", "bias") else {}  # one module: the layers share its table
        x, order = nn.Dense(FEATURES)(x), pe.positions.arange(x.shape[1])
        if place == "additive":
            x = x + scheme(positions)
        for _ in range(LAYERS):
            x = x + linen.Attention(HEADS, causal=False, **inside)(
                nn.LayerNorm()(x), order if not inside else positions
            )
            x = x + nn.Dense(FEATURES)(nn.gelu(nn.Dense(4 * FEATURES)(nn.LayerNorm()(x))))
        return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


def train(name, images, labels, options):
    """The params after one jitted loop over all steps; the batch of a step depends on the seed and its number."""
    model = ViT(name, TRAINED)
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, options.steps // 10, options.steps)
    optimizer = optax.adamw(schedule, weight_decay=0.05)

    def loss(params, x, labels):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), labels).mean()

    @jax.jit
    def run(params, x, labels):
        def step(i, state):
            params, optimizer_state = state
            rows = jax.random.randint(jax.random.key(i + options.seed), (BATCH,), 0, len(labels))
            gradients = jax.grad(loss)(params, x[rows], labels[rows])
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state

        return lax.fori_loop(0, options.steps, step, (params, optimizer.init(params)))[0]

    x = patches(images, TRAINED)
    return run(model.init(jax.random.key(options.seed), x[:1])["params"], x, labels)


@functools.partial(jax.jit, static_argnames=("name", "grid", "counted"))
def accuracy(params, images, labels, *, name, grid, counted=False):
    """Of held-out images, in batches of 40."""

    def right(batch):
        logits = ViT(name, grid, counted).apply({"params": resized(name, params, grid)}, patches(batch[0], grid))
        return logits.argmax(-1) == batch[1]

    return lax.map(right, (images.reshape(-1, 40, 8, 8), labels.reshape(-1, 40))).mean()


# The report


def table(results, grids):
    out = rich.table.Table(title=f"held-out accuracy, trained on {TRAINED} x {TRAINED} patches")
    out.add_column("positions")
    for column in ("parameters", "seconds", *(f"{grid} x {grid}" for grid in grids)):
        out.add_column(column, justify="right")
    for name, result in results.items():
        out.add_row(name, f"{result['parameters']:,}", f"{result['seconds']:.1f}", *percent(result["accuracy"]))
        if "counted" in result:
            out.add_row("  counted", "", "", *percent(result["counted"]))
    return out


def percent(scores):
    return [f"{100 * score:.1f} %" for score in scores.values()]


def draw(results, grids, image, path):
    """One digit on each grid, by the first pixels of its patches, and the accuracies."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    digits, scores = figure.subfigures(1, 2)
    for axes, grid in zip(digits.subplots(1, len(grids)), grids, strict=True):
        axes.imshow(patches(image[None], grid)[0, :, 0].reshape(grid, grid), cmap="gray_r")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{grid} x {grid} patches")
    axes = scores.subplots()
    for name, result in results.items():
        (line,) = axes.plot(grids, result["accuracy"].values(), marker="o", label=name)
        if "counted" in result:
            axes.plot(grids, result["counted"].values(), ":", color=line.get_color(), label=f"{name}, counted")
    axes.set(title="held out", xlabel=f"patches along a side (trained on {TRAINED})", ylabel="accuracy", xticks=grids)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def evaluate(name, params, held_out, grids, counted=False):
    return {str(grid): float(accuracy(params, *held_out, name=name, grid=grid, counted=counted)) for grid in grids}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", default=",".join(SCHEMES), help="which, comma-separated (default: %(default)s)")
    parser.add_argument("--grids", default="8,12,16", help="of evaluation, from 8 up (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of training (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    parser.add_argument("--output", default="runs/digits", help="a directory for the results (default: %(default)s)")
    options = parser.parse_args(argv)
    names, grids = options.positions.split(","), [int(grid) for grid in options.grids.split(",")]
    if unknown := set(names) - set(SCHEMES):
        parser.error(f"--positions has {', '.join(sorted(unknown))}; it needs names out of {', '.join(SCHEMES)}")
    if grids[0] != TRAINED:
        parser.error(f"--grids begins with {grids[0]}; it needs to begin with that of training, {TRAINED}")

    (images, labels), held_out = read_digits()
    results = {}
    for name in names:
        begin = time.perf_counter()
        params = train(name, images, labels, options)
        scores = evaluate(name, params, held_out, grids)
        results[name] = {"parameters": sum(x.size for x in jax.tree.leaves(params)), "accuracy": scores}
        if name in FRACTIONAL:
            counted = evaluate(name, params, held_out, grids[1:], counted=True)
            results[name]["counted"] = {str(TRAINED): scores[str(TRAINED)], **counted}
        results[name]["seconds"] = time.perf_counter() - begin
        print(f"{name}: {results[name]['seconds']:.1f} s")
    rich.print(table(results, grids))
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1))
    draw(results, grids, held_out[0][0], output / "digits.png")
    print(f"wrote results.json and digits.png to {output}")


if __name__ == "__main__":
    main()
