"""How a model type numbers text, images and videos: found by running its own method on `index_probes`."""

import numpy as np
from index_probes import Row, batch, index_class, run, takes

import posembed_jax as pe

MERGE = {"merge": ("vision_config.spatial_merge_size", "spatial_merge_size")}
SECONDS = {"tokens_per_second": ("vision_config.tokens_per_second", "position_id_per_seconds")}
OMNI = {"after": "largest", "seconds_first": True, "sound": True}
# (settings, where in a configuration others come from), the plainest first
CANDIDATES = [
    ({}, MERGE),
    ({"split_frames": True}, MERGE),
    ({}, MERGE | SECONDS),
    ({}, MERGE | {"time_merge": ("vision_config.temporal_merge_size",)}),
    (OMNI | {"paired_marks": True}, MERGE | SECONDS),
    (OMNI | {"fractional": True}, MERGE | SECONDS),
]
PROBED = {"merge": 3, "tokens_per_second": 7, "time_merge": 2}
CANVAS_IDS = ("image_start_id", "image_end_id", "slice_start_id", "slice_end_id", "newline_id")
IDS = ("image_token_id", "video_token_id", *CANVAS_IDS)
OMNI_IDS = (
    "vision_start_token_id",
    "vision_end_token_id",
    "audio_start_token_id",
    "audio_end_token_id",
    "audio_token_id",
)


def place(config, path):
    *parts, name = path.split(".")
    for part in parts:
        config = getattr(config, part, None)
    return (config, name) if getattr(config, name, None) is not None else None


def configuration(config_class):
    """The default one, with what its file would have to say."""
    config = config_class()
    for number, name in enumerate(IDS):
        if hasattr(config, name) and getattr(config, name) is None:
            setattr(config, name, 1000 + number)
    if "audio_seqlens" in takes(index_class(config_class)):
        for number, name in enumerate(OMNI_IDS):
            if getattr(config, name, None) is None:
                setattr(config, name, 2000 + number)
    if "image_grid_thw" in takes(index_class(config_class)) and "video_grid_thw" not in takes(
        index_class(config_class)
    ):
        text = getattr(config, "text_config", None)
        if text is not None and not (getattr(text, "rope_parameters", None) or {}).get("mrope_section"):
            text.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 16, 16, 16]}
    return config


def parts_of(found, config, merge, time_merge=1, split_frames=False, sound=False):
    """Two rows, in which the rules differ."""
    one, two = Row(found, config), Row(found, config)
    one.text(2)
    one.image((1, 2 * merge, 4 * merge))
    one.text(1)
    two.image((1, merge, merge))
    if "video_grid_thw" in one.takes:
        one.video(
            (5 * time_merge, merge, 2 * merge),
            0.7,
            frames_apart=split_frames,
            time_merge=time_merge,
            sound=70 if sound else None,
        )
        one.text(2)
        two.video(
            (15 * time_merge, merge, merge),
            0.3,
            frames_apart=split_frames,
            time_merge=time_merge,
            sound=300 if sound else None,
        )
    if one.omni:
        two.sound(40)
    two.text(4)
    return batch([one, two], (3, 0)), [one, two]


def agrees(found, config, settings, rule=pe.mrope.positions):
    for sound in {False, settings.get("sound", False)}:
        known = {name: settings[name] for name in ("time_merge", "split_frames") if name in settings}
        arrays, rows = parts_of(found, config, settings["merge"], sound=sound, **known)
        more = {"images_per_sample": np.array([len(row.image_grids) for row in rows])}
        more = {name: value for name, value in more.items() if name in takes(found)}
        more |= {"use_audio_in_video": np.array(sound)} if "use_audio_in_video" in takes(found) else {}
        theirs = run(found, config, arrays | more)
        real = arrays["attention_mask"] > 0
        ours, following = numbers(arrays, settings, rule)
        want = np.moveaxis(theirs["position_ids"], 0, -1)
        if ours.shape != want.shape or not np.allclose(ours[real], want[real], rtol=1e-6):
            return False
        deltas = following - real.sum(-1)
        if "images_per_sample" not in more and not np.allclose(
            deltas, theirs["rope_deltas"][:, 0], rtol=1e-6, atol=1e-5
        ):
            return False
    return True


def numbers(arrays, settings, rule):
    given = {"image_grids": "image_grid_thw", "video_grids": "video_grid_thw"}
    if settings.get("tokens_per_second"):
        given["seconds_per_grid"] = "second_per_grid_ts"
    given = {name: arrays[key] for name, key in given.items() if key in arrays}
    types, real = arrays["mm_token_type_ids"].astype(np.int32), arrays["attention_mask"].astype(np.int32)
    given = {name: np.asarray(x, np.float32 if x.dtype.kind == "f" else np.int32) for name, x in given.items()}
    ours, following = rule(types, segment_ids=real, **given, **settings)
    return np.asarray(ours), np.asarray(following)


def index_rule(config_class):
    """{"position_ids": which rule, "settings": of it, "places": setting -> [where it is, its default]}, or None."""
    found = index_class(config_class) if hasattr(config_class, "model_type") else None
    if found is None:
        return None
    config = configuration(config_class)
    if getattr(config, "image_token_id", None) is None:
        return None
    if "target_sizes" in takes(found):
        return {"position_ids": "canvas", "settings": {}, "places": {name: [name, None] for name in CANVAS_IDS}}
    if "images_per_sample" in takes(found):
        return (
            {"position_ids": "multimodal", "settings": {"merge": 1}, "places": {}}
            if agrees(found, config, {"merge": 1})
            else None
        )
    for settings, places in CANDIDATES:
        config = configuration(config_class)
        known = {
            name: next(((p, place(config, p)) for p in paths if place(config, p)), None)
            for name, paths in places.items()
        }
        if None in known.values():
            continue
        defaults = {name: [path, getattr(*where)] for name, (path, where) in known.items()}
        for name, (_, where) in known.items():
            setattr(*where, PROBED[name])
        values = settings | {name: PROBED[name] for name in known}
        try:
            if "video_grid_thw" not in takes(found):
                axes = len(config.text_config.rope_parameters["mrope_section"])
                if agrees(found, config, values | {"axes": axes}, pe.mrope.xdrope_positions):
                    return {"position_ids": "xdrope", "settings": {}, "places": defaults}
            elif agrees(found, config, values):
                return {"position_ids": "multimodal", "settings": settings, "places": defaults}
        except Exception:  # the method does not take a batch of this kind
            continue
    return None
