"""Cases of grids of patches, and of the positions of patches and of times."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import rotary
from case import Unsupported, check_close, check_equal
from rotary import FEW

import posembed_jax as pe
from posembed_jax import hf


def shapes(case):
    return [
        tuple(int(n) for n in row) for row in case["in.grid_thw" if "in.grid_thw" in case.arrays else "in.target_sizes"]
    ]


def check(case):
    extra, outputs = case.meta["extra"], {name for name in case.arrays if name.startswith("out.")}
    if "out.window_index" in outputs:
        return check_windows(case, extra)
    if "out.weights" in outputs:
        found = [
            pe.vision.table_taps(
                shape,
                side=extra["side"],
                method=extra["mode"],
                align_corners=extra["align_corners"],
                padding=extra["padding"],
                merge=extra["merge"],
            )
            for shape in shapes(case)
        ]
        check_equal(np.concatenate([indices for indices, _ in found]), case["out.indices"])
        return check_close(np.concatenate([weights for _, weights in found]), case["out.weights"], FEW)
    if outputs == {"out.position_ids"}:
        side = extra["num_patches_per_side"]
        ours = [pe.vision.nearest_rows(shape[-2:], side=side) for shape in shapes(case)]
        return check_equal(np.concatenate(ours), case["out.position_ids"])
    raise Unsupported(f"vision_grid with {sorted(outputs)}")


def check_windows(case, extra):
    merge = extra["spatial_merge_size"]
    size, start, order, ends = extra["window_size"] // merge // extra["patch_size"], 0, [], [0]
    for frames, height, width in shapes(case):
        within, segments = pe.vision.windows((frames, height // merge, width // merge), size=size)
        order.append(np.asarray(within) + start)
        ends += (ends[-1] + np.cumsum(np.bincount(np.asarray(segments))[1:]) * merge**2).tolist()
        start += len(within)
    check_equal(np.concatenate(order), case["out.window_index"])
    check_equal(np.array(ends), case["out.cu_window_seqlens"])
    check_equal(pe.vision.lengths(shapes(case)), case["out.cu_seqlens"])
    check_equal(pe.vision.lengths(shapes(case), joined=True), case["out.cu_seqlens_merged"])
    for name, joined, first in (("m1", 1, 1), ("m2", merge, 1), ("thw", merge, 0)):
        ours = [np.asarray(pe.vision.merged_grid(shape, merge=joined))[:, first:] for shape in shapes(case)]
        check_equal(np.concatenate(ours), case[f"out.position_ids_{name}"])


def check_centers(case):
    """DINOv3: angles are of 2 pi times the centres; tokens before the patches are not turned."""
    found, patch = rotary.model(case), case.config["patch_size"]
    about = found.about["rotation"]
    for name, (height, width), theirs in case.outputs(r"cos\.(\d+)x(\d+)"):
        size = name.removeprefix("out.cos.")
        at, front = hf.patch_positions((height // patch, width // patch), about), about["prefix"]
        check_close(at[front:] / (2 * math.pi), case[f"out.coords.{size}"], FEW)
        rotary.check_tables(found.rotation, np.asarray(at[front:]), (theirs, case[f"out.sin.{size}"]), wide=False)
        for x in "qk":
            if f"out.{x}_rot.{size}" in case.arrays:
                rotary.check_turned(found.rotation, case[f"in.{x}"], case[f"out.{x}_rot.{size}"], at)
    settings = {"shift": 0.3, "jitter": 1.5, "rescale": 2.0}  # the draws were made with these, as the case notes
    centers = pe.vision.augmented(
        jnp.asarray(case["out.coords.16x16"]), jnp.asarray(case["in.aug_uniform_draws"]), **settings
    )
    check_close(centers, case["out.coords_aug.16x16"], 4 * FEW)


def check_grid_from_one(case):
    """Llama 4's vision, and EfficientLoFTR."""
    found = rotary.model(case)
    rope = found.rotation
    if "out.freqs_ci" in case.arrays:
        side = case.config["image_size"] // case.config["patch_size"]
        at = hf.patch_positions((side, side), found.about["rotation"])
        table = case["out.freqs_ci"].reshape(-1, *case["out.freqs_ci"].shape[-2:])
        rotary.check_tables(rope, np.asarray(at), (table[..., 0], table[..., 1]), wide=False)
        for x in "qk":
            rotary.check_turned(rope, case[f"in.{x}"], case[f"out.{x}_rot"], at)
        return
    kernel, stride = case.config["q_aggregation_kernel_size"], case.config["q_aggregation_stride"]
    _, height, width, channels = case["out.full_shape"]
    assert (height, width) == tuple((size - kernel) // stride + 1 for size in case["in.shape"][-2:])
    at = hf.patch_positions((int(height), int(width)), found.about["rotation"])
    assert rope.dim == channels
    kept = case["out.cos"].shape[-1]
    for ours, name in zip(dataclasses.replace(rope, phase="float32").cos_sin(at), ("cos", "sin"), strict=True):
        theirs = case[f"out.{name}"].reshape(-1, kept)
        check_close(ours[:, : kept // 2], theirs[:, ::2], FEW * 20)


def check_times(case):
    """MusicFlamingo rotates hidden states, `[B, T, F]`, by times."""
    rope, times, x = rotary.model(case).rotation, jnp.asarray(case["in.timestamps"]), jnp.asarray(case["in.hidden"])
    frame = 4 * case.config["audio_frame_step"]  # its encoder makes one of four
    at = pe.mrope.timestamps(times, seconds=frame, count=int(case.config["max_position_embeddings"]))
    rotary.check_tables(rope, np.asarray(at), (case["out.cos"], case["out.sin"]), wide=False)
    ours = rotary.call(rope.bind({}), x[:, :, None], at)[:, :, 0]
    check_close(ours, case["out.h_rot"], 100 * FEW * np.max(np.abs(x)))


def check_keypoints(case):
    """LightGlue's learned map of coordinates, the same for every head."""
    frequencies = case["par.projector.weight"].T[None]  # [1, A, dim / 2]
    _, axes, pairs = frequencies.shape
    mixed = pe.RoPEMixed(dim=2 * pairs, layout="interleaved", axes=axes, fractional=True)
    bound = mixed.bind({"frequencies": jnp.asarray(frequencies)})
    for name in "qk":
        x = jnp.swapaxes(jnp.asarray(case[f"in.{name}"]), 1, 2)
        ours = rotary.call(bound, x, jnp.asarray(case["in.keypoints"]))
        check_close(jnp.swapaxes(ours, 1, 2), case[f"out.{name}_rot"], 20 * FEW * np.max(np.abs(x)))


def check_index(case):
    """In the flat list of the whole batch, which is transformers' form. Padding is where transformers puts it."""
    config = {**case.config, "model_type": case.model}
    settings, real, types = hf.multimodal(config), case["in.attention_mask"], token_types(case)
    images, videos = (case.arrays.get(f"in.{kind}_grid_thw") for kind in ("image", "video"))
    theirs = np.moveaxis(case["out.position_ids"], 0, -1)
    if "slice_start_id" in settings:
        crops = {"image_grids": case["in.target_sizes"], "video_grids": case["in.target_sizes_videos"]}
        ours, following = pe.mrope.canvas_positions(case["in.input_ids"], types, **crops, segment_ids=real, **settings)
    elif "axes" in settings:
        ours, following = pe.mrope.xdrope_positions(types, image_grids=images, segment_ids=real, **settings)
    elif "in.images_per_sample" in case.arrays:
        return check_drawing(case, settings)
    else:
        if not case.arrays.get("in.use_audio_in_video", True):
            settings = settings | {"sound": False, "paired_marks": False}
        seconds = [case[name] for name in ("in.second_per_grid_ts", "in.second_per_grids") if name in case.arrays]
        ours, following = pe.mrope.positions(
            types,
            image_grids=images,
            video_grids=videos,
            seconds_per_grid=seconds[0] if seconds and "tokens_per_second" in settings else None,
            segment_ids=real,
            **settings,
        )
    check_numbers(ours[real > 0], theirs[real > 0])
    check_numbers(np.asarray(following) - real.sum(axis=-1), case["out.rope_deltas"][:, 0])


def check_numbers(ours, theirs):
    """Of float32, each sum is rounded once more than ours, which are of whole numbers and rests."""
    if theirs.dtype.kind == "i":
        return check_equal(ours, theirs)
    check_close(np.asarray(ours), theirs, 8 * np.spacing(np.float32(np.max(np.abs(theirs), initial=1))))


def token_types(case):
    """As the case has them, or from its tokens: 1 = image, 2 = video, 3 = sound."""
    if "in.mm_token_type_ids" in case.arrays:
        return case["in.mm_token_type_ids"]
    config = {**case.config, **(case.config.get("thinker_config") or {})}
    ids, types = case["in.input_ids"], np.zeros_like(case["in.input_ids"])
    if "image_start_token_id" in config and "in.images_per_sample" in case.arrays:
        after = np.cumsum(ids == config["image_start_token_id"], axis=-1) - (ids == config["image_start_token_id"])
        return np.where(after > np.cumsum(ids == config["image_end_token_id"], axis=-1), 1, 0).astype(np.int32)
    for kind, name in ((1, "image"), (2, "video"), (3, "audio")):
        types = np.where(ids == config.get(f"{name}_token_id", -1), kind, types)
    return types


def check_drawing(case, settings):
    """GLM-Image: the first grids of a row are of its images, the others of those that it draws."""
    real, types = case["in.attention_mask"], token_types(case)
    ends = np.cumsum(case["in.images_per_sample"])
    grids = np.split(case["in.image_grid_thw"], ends[:-1])
    complete = np.sum(np.where(real > 0, case["in.input_ids"] == case.config["image_end_token_id"], False), axis=-1)
    for row, (own, count) in enumerate(zip(grids, complete, strict=True)):
        ours, following = pe.mrope.positions(types[row], image_grids=own[:count], segment_ids=real[row], **settings)
        check_equal(
            np.asarray(ours)[real[row] > 0], np.moveaxis(case["out.position_ids"][:, row], 0, -1)[real[row] > 0]
        )
        theirs = np.moveaxis(case["out.decode_position_ids"][row], 0, -1)
        check_equal(pe.mrope.drawn_positions(own[count:], following, length=len(theirs)), theirs)
