"""Random batches of pictures in slices between MiniCPM-V 4.7's markers: as its processor puts them, and others."""

import numpy as np
from index_probes import Row, batch

MODES = ("16x", "4x")
KINDS = {"image": 1, "video": 2}


class CanvasRow(Row):
    def __init__(self, found, config):
        super().__init__(found, config)
        self.merge = {"16x": 4, "4x": 2}[config.downsample_mode]
        self.target_sizes, self.target_sizes_videos = [], []

    def crop(self, kind, size, before, after):
        {"image": self.target_sizes, "video": self.target_sizes_videos}[kind].append(size)
        self.put([before])
        self.put(
            [getattr(self.config, f"{kind}_token_id")] * (size[0] // self.merge * (size[1] // self.merge)), KINDS[kind]
        )
        self.put(after)

    def frame(self, kind, sizes, columns, between):
        """A first crop and slices, which `between` stands behind at the end of each row but the last."""
        config = self.config
        self.crop(kind, sizes[0], config.image_start_id, [config.image_end_id])
        for k, size in enumerate(sizes[1:], start=1):
            newline = between if k % columns == 0 and k + 1 < len(sizes) else []
            self.crop(kind, size, config.slice_start_id, [config.slice_end_id, *newline])


def random_sizes(rng, merge, slices):
    """Of a first crop, and of slices that are most often of one size."""
    first, tile = merge * rng.integers(1, 5, 2), merge * rng.integers(2, 5, 2)
    sizes = [first + rng.integers(0, merge, 2)]
    sizes += [tile - merge * (rng.random(2) < 0.1) for _ in range(slices)]
    return [tuple(int(n) for n in size) for size in sizes]


def random_canvases(rng, found, config):
    rows = [CanvasRow(found, config) for _ in range(3)]
    markers = [config.newline_id, config.image_end_id, config.slice_end_id]
    for row in rows:
        row.text(int(rng.integers(0, 3)))
        for kind in rng.permutation(["image"] * 3 + ["video"] * 3):
            slices, columns = int(rng.choice([0, 0, 1, 2, 4, 5, 6])), int(rng.integers(1, 4))
            between = [[config.newline_id]] * 3 + [[], [config.newline_id] * 2]
            row.frame(kind, random_sizes(rng, row.merge, slices), columns, between[rng.integers(len(between))])
            row.put([int(marker) for marker in rng.choice(markers, rng.integers(0, 3))])
            row.text(int(rng.choice([0, 0, 1, 2])))
    arrays = batch(rows, [int(n) for n in rng.integers(0, 4, len(rows))])
    for name in ("target_sizes", "target_sizes_videos"):
        arrays[name] = np.array([size for row in rows for size in getattr(row, name)])
    return arrays
