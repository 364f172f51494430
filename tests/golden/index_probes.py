"""Batches of text, images, videos and sound, and the numbers that transformers' own `get_rope_index` gives them."""

import functools
import importlib
import inspect
import itertools

import numpy as np
import torch

TEXT = 7  # a token of text, in every vocabulary


def index_class(config_class):
    """The class whose `get_rope_index` numbers the tokens of this configuration; None where there is none."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    name = config_class.__module__.split(".")[-2]
    try:
        module = importlib.import_module(f"transformers.models.{name}.modeling_{model_type_to_module_name(name)}")
    except ImportError:
        return None
    for _, found in inspect.getmembers(module, inspect.isclass):
        if hasattr(found, "get_rope_index") and getattr(found, "config_class", None) is config_class:
            return found
    for _, found in inspect.getmembers(module, inspect.isclass):
        holder = inspect.get_annotations(found).get("config")
        if "get_rope_index" in vars(found) and holder is config_class:
            return found
    return None


def stand_in(found, config):
    """An object with the class's methods and a configuration, and no weights."""
    methods = {
        name: inspect.getattr_static(found, name)
        for name in dir(found)
        if name.startswith(("get_", "_group_", "_frame_"))
    }
    self = type("StandIn", (), methods)()
    self.config = config
    self.spatial_merge_size = merge_of(config)
    return self


def merge_of(config):
    vision = getattr(config, "vision_config", None)
    return getattr(vision, "spatial_merge_size", None) or getattr(config, "spatial_merge_size", None) or 1


def takes(found):
    return set(inspect.signature(found.get_rope_index).parameters)


def one_id(config, *names):
    return next((getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)), 3)


class Row:
    """The tokens of one sequence, part by part; what stands around a part is what the model's processor puts there."""

    def __init__(self, found, config):
        self.takes, self.config = takes(found), config
        self.ids, self.types = [], []
        self.image_grids, self.video_grids, self.seconds, self.sounds = [], [], [], []
        self.omni = "audio_seqlens" in self.takes
        self.drawing = "images_per_sample" in self.takes
        self.merge = 1 if self.drawing else merge_of(config)

    def put(self, ids, kind=0):
        self.ids += ids
        self.types += [kind] * len(ids)

    def text(self, count):
        self.put([TEXT] * count)

    def tokens(self, grid, time_merge=1):
        return grid[0] // time_merge * (grid[1] // self.merge) * (grid[2] // self.merge)

    def image(self, grid, enclosed=False):
        start, end = self.borders("image_start_token_id", "image_end_token_id") if self.drawing else self.borders()
        token = one_id(self.config, "image_token_id")
        self.image_grids.append(grid)
        count = self.tokens(grid)
        if "video_grid_thw" not in self.takes and not self.drawing:  # HunyuanVL's rows end in newlines
            count += grid[1] // self.merge + 2 * enclosed
        self.put([start])
        self.put([token] * count, 1)
        self.put([end])

    def borders(self, start="vision_start_token_id", end="vision_end_token_id"):
        return one_id(self.config, start), one_id(self.config, end)

    def video(self, grid, seconds=1.0, *, frames_apart=False, time_merge=1, sound=None):
        start, end = self.borders()
        token = one_id(self.config, "video_token_id")
        self.video_grids.append(grid)
        self.seconds.append(seconds)
        if frames_apart:
            for _ in range(grid[0]):
                self.put([start])
                self.put([token] * self.tokens((1, *grid[1:])), 2)
                self.put([end, TEXT])
        elif sound is None:
            self.put([start])
            self.put([token] * self.tokens(grid, time_merge), 2)
            self.put([end])
        else:
            self.sounds.append(sound)
            audio = one_id(self.config, "audio_token_id")
            self.put([start, one_id(self.config, "audio_start_token_id")])
            for kind in self.interleaved(grid, seconds, sound_tokens(self.config, sound)):
                self.put([{2: token, 3: audio}[kind]], kind)
            self.put([one_id(self.config, "audio_end_token_id"), end])

    def interleaved(self, grid, seconds, count):
        """In chunks of some seconds, the video first, or by time, as the processors of the two Omni models do."""
        per_second, per_frame = self.config.position_id_per_seconds, self.tokens((1, *grid[1:]))
        times = np.arange(grid[0], dtype=np.float32) * np.float32(seconds) * np.float32(per_second)
        chunk = getattr(self.config, "seconds_per_chunk", None)
        if chunk is not None:
            size = int(per_second * chunk)
            chunks = [np.floor(x // size) for x in (np.repeat(np.trunc(times), per_frame), np.arange(count))]
        else:
            chunks = [np.repeat(times, per_frame), np.arange(count, dtype=np.float32)]
        order = [(c, kind) for kind, found in zip((2, 3), chunks, strict=True) for c in found]
        return [kind for _, kind in sorted(order)]

    def sound(self, length):
        self.sounds.append(length)
        self.put([one_id(self.config, "audio_start_token_id")])
        self.put([one_id(self.config, "audio_token_id")] * sound_tokens(self.config, length), 4)
        self.put([one_id(self.config, "audio_end_token_id")])


def sound_tokens(config, length):
    """How many tokens a spectrogram of some frames is."""
    if hasattr(config, "seconds_per_chunk"):
        return ((length - 1) // 2 + 1 - 2) // 2 + 1
    chunk = config.audio_config.n_window * 2
    rest = (length % chunk - 1) // 2 + 1
    return ((rest - 1) // 2 + 1 - 1) // 2 + 1 + (length // chunk) * 13


def batch(rows, left):
    """{array name: array}: rows padded to one length, on the left by these numbers."""
    length = max(n + len(row.ids) for n, row in zip(left, rows, strict=True))
    found = {
        name: np.full((len(rows), length), value) for name, value in (("input_ids", TEXT), ("mm_token_type_ids", 0))
    }
    found["attention_mask"] = np.zeros((len(rows), length), np.int64)
    for i, (row, start) in enumerate(zip(rows, left, strict=True)):
        where = slice(start, start + len(row.ids))
        found["input_ids"][i, where], found["mm_token_type_ids"][i, where] = row.ids, row.types
        found["attention_mask"][i, where] = 1
    for name, part in (("image_grid_thw", "image_grids"), ("video_grid_thw", "video_grids")):
        grids = list(itertools.chain(*(getattr(row, part) for row in rows)))
        if grids:
            found[name] = np.array(grids)
    seconds = list(itertools.chain(*(row.seconds for row in rows)))
    if seconds:
        found["second_per_grid_ts"] = np.array(seconds, np.float32)
    sounds = list(itertools.chain(*(row.sounds for row in rows)))
    if sounds:
        found["audio_seqlens"] = np.array(sounds)
    return found


def run(found, config, arrays):
    """transformers' position ids `[A, B, T]` and deltas `[B, 1]`; of a model that draws, the positions of that, too."""
    names = {"second_per_grids": "second_per_grid_ts"}
    taken = takes(found) & {names.get(name, name) for name in arrays} | takes(found) & set(names)
    arguments = {name: torch.as_tensor(arrays[key]) for name in taken if (key := names.get(name, name)) in arrays}
    self = stand_in(found, config)
    positions, deltas = functools.partial(found.get_rope_index, self)(**arguments)
    results = {"position_ids": positions.numpy(), "rope_deltas": deltas.numpy()}
    drawn = getattr(self, "_cached_decode_position_ids", None)
    if drawn is not None:
        results["decode_position_ids"] = drawn.numpy()
    return results
