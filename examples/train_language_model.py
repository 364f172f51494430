"""What positions do for a transformer: the same byte-level GPT, trained once with each position scheme.

The text is the source of the Python standard library on this machine, one file in twenty held out; nothing is
downloaded. Every scheme sees the same batches. Then the same held-out bytes are scored at the training length and at
twice and four times that length, which no scheme was trained on, and each model writes a few lines by cached decoding.

    python examples/train_language_model.py                                # six schemes, minutes on two CPU cores
    python examples/train_language_model.py --positions rope,alibi --text my_notes.md
    python examples/train_language_model.py --checkpoint runs/checkpoints  # interrupted? The same again with --resume

On a GPU, or on a TPU VM, where the batch is split over all chips, it is the same script with larger flags:

    python examples/train_language_model.py --steps 5000 --batch 32 --length 512 --layers 8 --features 512 --heads 8 \\
        --learning-rate 1e-3 --dtype bfloat16 --checkpoint runs/checkpoints

It writes `results.json` and `positions_bits_per_byte.png` to --output.
"""

import argparse
import functools
import json
import math
import pathlib
import sysconfig
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import rich
import rich.table
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matplotlib.figure import Figure
from tqdm import tqdm

import posembed_jax as pe
from posembed_jax import nnx as pnnx

SCHEMES = ("none", "learned", "sinusoidal", "rope", "t5", "alibi")
MULTIPLES = (1, 2, 4)  # of the training length, for evaluation
PROMPTS = (b"def ", b"class Test", b"    return self.")


# Data: one long array of bytes. The batch of a step depends on the seed and the step number alone.


def read_text(path):
    """Training and held-out (5 %) bytes, uint8, of a file or of the files under a directory."""
    root = pathlib.Path(path or sysconfig.get_path("stdlib"))
    if root.is_file():
        text = root.read_bytes()
        parts = [text[i : i + 10_000] for i in range(0, len(text), 10_000)]
    else:
        skip = {"__pycache__", ".git"}
        skip |= set() if path else {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
        files = sorted(root.rglob("*" if path else "*.py"))
        parts = [f.read_bytes() for f in files if f.is_file() and not skip & set(f.relative_to(root).parts)]
    held_out = parts[::20]
    del parts[::20]
    return [np.frombuffer(b"".join(part), np.uint8) for part in (parts, held_out)]


def windows(text, starts, length):
    """int32 `[B, length + 1]`: inputs and the byte after each."""
    return text[starts[:, None] + jnp.arange(length + 1)].astype(jnp.int32)


# The model: a pre-norm transformer with tied embeddings. The position scheme is all that differs between runs.
# Learned positions and T5's bias begin with a deviation of 1, the size of the embeddings and of the logits: from the
# usual 0.02 they need many more steps.


def position_scheme(name, options):
    """Where it acts ("additive", "rotation", "bias" or nowhere) and its settings."""
    features, heads, length = options.features, options.heads, options.length
    match name:
        case "none":
            return None, None
        case "learned":
            # A row for every length that is evaluated: with `length=length`, positions past the training length would
            # give NaN. The rows past it exist but never get a gradient, so they stay random, and it shows.
            return "additive", pe.LearnedPositions(length=max(MULTIPLES) * length, features=features, stddev=1.0)
        case "sinusoidal":
            return "additive", pe.Sinusoidal(features=features)
        case "rope":
            return "rotation", pe.RoPE(dim=features // heads, layout="half")
        case "t5":  # the last bucket begins within the training length, so all of them are trained
            return "bias", pe.T5Bias(heads=heads, max_distance=max(length, 17), bidirectional=False, stddev=1.0)
        case "alibi":
            return "bias", pe.ALiBi(heads=heads)


class Block(nnx.Module):
    def __init__(self, options, rngs, **scheme):
        features, common = options.features, {"dtype": options.dtype, "rngs": rngs}
        self.attention_norm, self.mlp_norm = nnx.RMSNorm(features, **common), nnx.RMSNorm(features, **common)
        self.attention = pnnx.Attention(
            features, heads=options.heads, implementation=options.attention or None, **scheme, **common
        )
        self.up = nnx.Linear(features, 4 * features, use_bias=False, **common)
        self.down = nnx.Linear(4 * features, features, use_bias=False, **common)

    def __call__(self, x, positions, segment_ids, cache):
        out = self.attention(self.attention_norm(x), positions, segment_ids=segment_ids, cache=cache)
        out, cache = (out, None) if cache is None else out
        x = x + out
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x)))), cache


class GPT(nnx.Module):
    def __init__(self, name, options, rngs):
        self.dtype, features = options.dtype, options.features
        self.tokens = pnnx.TokenEmbed(256, features, stddev=features**-0.5, scale=features**0.5, rngs=rngs)
        place, scheme = position_scheme(name, options)
        module = scheme and pnnx.Scheme(scheme, rngs=rngs)  # one module: the layers share T5's bias, as in T5
        self.additive = module if place == "additive" else None
        inside = {place: module} if place in ("rotation", "bias") else {}
        self.blocks = nnx.List([Block(options, rngs, **inside) for _ in range(options.layers)])
        self.norm = nnx.RMSNorm(features, dtype=options.dtype, rngs=rngs)

    def __call__(self, ids, segment_ids=None, caches=None):
        """ids `[B, T]` -> float32 logits `[B, T, 256]` and the caches. With caches, each row goes on from its own."""
        positions = pe.positions.arange(ids.shape[1]) if caches is None else caches[0].next_positions(segment_ids)
        x = self.tokens(ids)
        if self.additive is not None:
            x = x + self.additive(positions)
        x, filled = x.astype(self.dtype), []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x, cache = block(x, positions, segment_ids, cache)
            filled.append(cache)
        return self.tokens.logits(self.norm(x)), filled


# Training: one jitted function takes any number of steps; its state is donated, so it is updated in place.


def make_loss(graphdef, options):
    # The batch is split over the devices and the parameters are on all of them; the compiler adds the all-reduces.
    split = NamedSharding(options.mesh, PartitionSpec("data"))

    def loss(params, ids):
        """Mean bits per byte of `ids[:, 1:]`, each given the bytes before it."""
        ids = lax.with_sharding_constraint(ids, split)
        logits, _ = nnx.merge(graphdef, params)(ids[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean() / math.log(2)

    return loss


def make_optimizer(options):
    def kernels(params):  # embeddings, bias tables and norms do not decay
        return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), params)

    peak = options.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, options.steps // 10, options.steps, 0.05 * peak)
    adamw = optax.adamw(schedule, b2=0.95, weight_decay=0.1, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def train(name, loss, params, text, options):
    """The trained params, and the bits per byte of every step, `[steps]`."""
    optimizer = make_optimizer(options)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state, first, last, text):
        def step(i, state):
            key = jax.random.fold_in(jax.random.key(options.seed), i)
            starts = jax.random.randint(key, (options.batch,), 0, text.shape[0] - options.length)
            value, gradients = jax.value_and_grad(loss)(state["params"], windows(text, starts, options.length))
            updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "optimizer": optimizer_state, "losses": state["losses"].at[i].set(value)}

        return lax.fori_loop(first, last, step, state)

    state = {"params": params, "optimizer": optimizer.init(params), "losses": jnp.zeros(options.steps)}
    state = jax.device_put(state, NamedSharding(options.mesh, PartitionSpec()))
    done, checkpoints = 0, None
    if options.checkpoint:
        keep = ocp.CheckpointManagerOptions(save_interval_steps=options.save_every, max_to_keep=2)
        checkpoints = ocp.CheckpointManager(pathlib.Path(options.checkpoint, name).resolve(), options=keep)
        if options.resume and checkpoints.latest_step() is not None:
            done = checkpoints.latest_step()
            state = checkpoints.restore(done, args=ocp.args.StandardRestore(state))
    with tqdm(total=options.steps, initial=done, desc=f"{name:>10}", unit="step") as bar:
        while done < options.steps:
            first, done = done, min(done + math.gcd(10, options.save_every), options.steps)
            state = steps(state, first, done, text)
            if checkpoints:
                checkpoints.save(done, args=ocp.args.StandardSave(state), force=done == options.steps)
            bar.update(done - first)
            bar.set_postfix_str(f"{state['losses'][done - 1]:.3f} bits/byte")
    if checkpoints:
        checkpoints.close()
    return state["params"], np.asarray(state["losses"])


# Evaluation and generation


def evaluate(loss, params, text, options):
    """Held-out bits per byte at each multiple of the training length, of the same bytes, which are cut differently."""
    longest = max(MULTIPLES) * options.length
    starts = np.linspace(0, text.shape[0] - longest - 1, options.held_out * options.batch, dtype=np.int32)

    @functools.partial(jax.jit, static_argnames="length")
    def at(params, text, length):
        batches = (starts[:, None] + np.arange(0, longest, length, dtype=np.int32)).reshape(-1, options.batch)
        return lax.map(lambda batch: loss(params, windows(text, batch, length)), batches).mean()

    return {str(multiple): float(at(params, text, multiple * options.length)) for multiple in MULTIPLES}


def generate(graphdef, params, options):
    """What follows each prompt: one call for all prompts, whatever their lengths, then a byte per step."""
    capacity, rows = min(options.sample, max(MULTIPLES) * options.length), len(PROMPTS)
    ids = np.array([list(prompt.ljust(max(map(len, PROMPTS)), b"\0")) for prompt in PROMPTS], np.int32)
    segment_ids = (ids != 0).astype(np.int32)  # 0 is padding

    @jax.jit
    def decode(params, ids, segment_ids, keys):
        model = nnx.merge(graphdef, params)
        dim = options.features // options.heads
        empty = pe.KVCache.empty(batch=rows, capacity=capacity, heads=options.heads, dim=dim, dtype=options.dtype)

        def step(carry, key):
            logits, caches = carry
            token = jax.random.categorical(key, logits / 0.7)
            logits, caches = model(token[:, None], jnp.ones((rows, 1), jnp.int32), caches)
            return (logits[:, 0], caches), token

        logits, caches = model(ids, segment_ids, [empty] * options.layers)
        last = jnp.sum(segment_ids, axis=1) - 1
        return lax.scan(step, (logits[jnp.arange(rows), last], caches), keys)[1].T

    keys = jax.random.split(jax.random.key(options.seed), capacity - ids.shape[1])
    new = np.asarray(decode(params, ids, segment_ids, keys), np.uint8)
    return [(prompt + row.tobytes()).decode(errors="replace") for prompt, row in zip(PROMPTS, new, strict=True)]


# The report


def draw(results, options, path):
    figure = Figure(figsize=(10, 4), layout="constrained")
    curves, lengths = figure.subplots(1, 2)
    window = max(1, options.steps // 20)
    for name, result in results.items():
        smooth = np.convolve(result["losses"], np.ones(window) / window, mode="valid")
        curves.plot(np.arange(len(smooth)) + window, smooth, label=name)
        lengths.plot(MULTIPLES, result["bits_per_byte"].values(), marker="o", label=name)
    curves.set(title="training", xlabel="step", ylabel="bits per byte")
    lengths.set(title="held out", xlabel=f"length / training length ({options.length})", ylabel="bits per byte")
    lengths.set_xticks(MULTIPLES)
    lengths.legend()
    for axes in (curves, lengths):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def table(results, options):
    out = rich.table.Table(title="held-out bits per byte, less is better")
    out.add_column("positions")
    for column in ("parameters", "seconds", *(f"{m}× ({m * options.length})" for m in MULTIPLES)):
        out.add_column(column, justify="right")
    for name, result in results.items():
        scores = (f"{score:.3f}" for score in result["bits_per_byte"].values())
        out.add_row(name, f"{result['parameters']:,}", f"{result['seconds']:.1f}", *scores)
    return out


FLAGS = {  # name: default, help
    "positions": (",".join(SCHEMES), "which schemes, comma-separated"),
    "text": ("", "a file, or a directory of files; the standard library's source when empty"),
    "steps": (700, "training steps"),
    "batch": (8, "sequences a step"),
    "length": (64, "bytes a sequence"),
    "layers": (2, "transformer blocks"),
    "features": (128, "width of the model"),
    "heads": (4, "attention heads"),
    "learning-rate": (4e-3, "at the end of the warm-up; cosine decay"),
    "dtype": ("float32", "of activations, float32 or bfloat16; parameters are float32"),
    "attention": ("", "implementation of posembed_jax.attend, reference or xla; its own choice when empty"),
    "held-out": (16, "batches of held-out text, of the longest length"),
    "seed": (0, "of parameters, batches and samples"),
    "sample": (120, "bytes of generated text, prompt included"),
    "checkpoint": ("", "a directory for checkpoints; none when empty"),
    "save-every": (100, "steps between checkpoints"),
    "output": ("runs/language_model", "a directory for the results"),
}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, meaning) in FLAGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} (default: %(default)s)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoints; other flags as before"
    )
    options = parser.parse_args(argv)
    options.positions = options.positions.split(",")
    if unknown := set(options.positions) - set(SCHEMES):
        parser.error(f"--positions has {', '.join(sorted(unknown))}; it needs names out of {', '.join(SCHEMES)}")
    if options.checkpoint and not options.resume and any(pathlib.Path(options.checkpoint).glob("*/*")):
        parser.error(f"--checkpoint {options.checkpoint} has checkpoints: pass --resume, or another directory")
    devices = jax.local_devices()
    options.mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    return options


def main(argv=None):
    options, results = parse(argv), {}
    texts = read_text(options.text)
    if min(map(len, texts)) <= max(MULTIPLES) * options.length:
        raise SystemExit(f"the text is too short: the held-out twentieth needs over {max(MULTIPLES)} × --length bytes")
    text, held_out = jax.device_put(texts, NamedSharding(options.mesh, PartitionSpec()))
    print(f"{len(text):,} bytes to train on, {len(held_out):,} held out; devices: {jax.local_devices()}")
    for name in options.positions:
        begin = time.perf_counter()
        graphdef, params = nnx.split(GPT(name, options, nnx.Rngs(options.seed)))
        loss = make_loss(graphdef, options)
        params, losses = train(name, loss, params, text, options)
        results[name] = {
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "bits_per_byte": evaluate(loss, params, held_out, options),
            "losses": losses.tolist(),
            "samples": generate(graphdef, params, options),
            "seconds": time.perf_counter() - begin,
        }
    for name, result in results.items():
        print(f"\n{name} writes:", *result["samples"], sep="\n--- ")
    rich.print(table(results, options))
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1))
    draw(results, options, output / "positions_bits_per_byte.png")
    print(f"wrote results.json and positions_bits_per_byte.png to {output}")


if __name__ == "__main__":
    main()
