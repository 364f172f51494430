"""Makes golden cases of the numbers of text, images, videos and sound with transformers' own `get_rope_index`.

    python tests/golden/make_index.py DIR [model types] [--seed N]
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch. Every model type of several modalities has a case of random parts, and those that
hear one with the sound of videos.
"""

import argparse
import json
import logging
import pathlib
import warnings

import numpy as np
from canvas_rows import MODES, random_canvases
from index_probes import Row, batch, index_class, run, takes
from index_rules import configuration, index_rule

KEPT = (
    "token_id",
    "_id",
    "_per_",
    "rope_parameters",
    "spatial_merge_size",
    "temporal_merge_size",
    "n_window",
    "downsample_mode",
)
# Where times are not whole numbers, none on which sound and video meet: transformers orders those by rounding errors.
SECONDS = {False: np.float32([0.3, 0.5, 0.7, 1.0]), True: np.float32([0.37, 0.5, 0.71, 1.0])}


def kept(values):
    """What of a configuration these numbers may depend on."""
    found = {
        name: kept(value) for name, value in values.items() if isinstance(value, dict) and name.endswith("_config")
    }
    return found | {
        name: value for name, value in values.items() if name == "model_type" or any(k in name for k in KEPT)
    }


def random_rows(rng, found, config, rule, sound):
    settings = rule["settings"]
    time_merge = 2 if "time_merge" in rule["places"] else 1
    merge = Row(found, config).merge
    rows = [Row(found, config) for _ in range(3)]
    for row in rows:
        kinds = ["text"] * 2 + ["image"] * 2 + ["video"] * 2 * ("video_grid_thw" in row.takes) + ["sound"] * row.omni
        for kind in rng.permutation(kinds):
            grid = (1, *(merge * rng.integers(1, 4, 2)))
            frames = int(rng.integers(1, 5)) * time_merge
            if kind == "text":
                row.text(int(rng.integers(1, 5)))
            elif kind == "image":
                row.image(tuple(int(n) for n in grid))
            elif kind == "sound":
                row.sound(int(rng.integers(20, 60)))
            else:
                row.video(
                    (frames, *(int(n) for n in grid[1:])),
                    float(rng.choice(SECONDS[settings.get("fractional", False)])),
                    frames_apart=settings.get("split_frames", False),
                    time_merge=time_merge,
                    sound=int(rng.integers(20, 300)) if sound else None,
                )
        row.text(2)
    return rows


def make(folder, model_type, config_class, seed, sound):
    found, rule = index_class(config_class), index_rule(config_class)
    if rule is None:
        return 0
    rng, config = np.random.default_rng(seed), configuration(config_class)
    if rule["position_ids"] == "canvas":
        config.downsample_mode = MODES[seed % 2]
        arrays = random_canvases(rng, found, config)
    else:
        rows = random_rows(rng, found, config, rule, sound)
        arrays = batch(rows, [int(n) for n in rng.integers(0, 4, 3)])
    if "images_per_sample" in takes(found):  # the last image of each row is still to be drawn
        arrays["images_per_sample"] = np.array([3, 4, 3])
        grids, drawn = np.split(arrays["image_grid_thw"], 3), rng.integers(1, 4, (4, 2))
        more = [[[1, *drawn[0]]], [[1, *drawn[1]], [1, *drawn[2]]], [[1, *drawn[3]]]]
        arrays["image_grid_thw"] = np.concatenate([np.concatenate(pair) for pair in zip(grids, more, strict=True)])
    if "use_audio_in_video" in takes(found):
        arrays["use_audio_in_video"] = np.array(sound)
    results = run(found, config, arrays)
    variant = f"seed{seed}" + "_sound_in_video" * sound
    meta = {"mechanism": "mrope_index", "model_type": model_type, "variant": variant, "note": ""}
    meta |= {"config_saved": kept(config.to_dict()), "ran": f"{found.__name__}.get_rope_index"}
    name = f"mrope_index__{model_type}__{variant}"
    (folder / f"{name}.json").write_text(json.dumps(meta, sort_keys=True, default=str) + "\n")
    np.savez_compressed(
        folder / f"{name}.npz",
        **{f"in.{key}": x for key, x in arrays.items()},
        **{f"out.{key}": x for key, x in results.items()},
    )
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = 0
    for model_type in arguments.types or sorted(CONFIG_MAPPING.keys()):
        config_class = CONFIG_MAPPING[model_type]
        found = index_class(config_class)
        if found is None:
            continue
        for sound in (False, True) if "use_audio_in_video" in takes(found) else (False,):
            made += make(arguments.folder, model_type, config_class, arguments.seed, sound)
    print(f"{made} cases in {arguments.folder}")


if __name__ == "__main__":
    main()
