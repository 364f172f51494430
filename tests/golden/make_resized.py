"""Makes `resized.npz`, what torch's `interpolate` makes of one small table. Needs torch.

python tests/golden/make_resized.py
"""

import pathlib

import numpy as np
import torch

OLD = (5, 7)
SIZES = ((8, 9), (3, 4), (12, 2), (1, 14))
HOW = {
    "nearest": dict(mode="nearest"),
    **{
        f"{mode}{'-antialias' * antialias}{'-corners' * corners}": dict(
            mode=mode, antialias=antialias, align_corners=corners
        )
        for mode in ("bilinear", "bicubic")
        for antialias in (False, True)
        for corners in (False, True)
    },
}


def main():
    table = torch.randn((*OLD, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    channels_first = table.permute(2, 0, 1)[None]
    arrays = {"table": table.numpy()}
    for name, how in HOW.items():
        for size in SIZES:
            out = torch.nn.functional.interpolate(channels_first, size=size, **how)
            arrays[f"{name}-{size[0]}x{size[1]}"] = out[0].permute(1, 2, 0).numpy()
        if name != "nearest" and not how["align_corners"]:
            factors = tuple((new + 0.1) / old for new, old in zip(SIZES[0], OLD, strict=True))
            out = torch.nn.functional.interpolate(channels_first, scale_factor=factors, **how)
            arrays[f"{name}-factor-{SIZES[0][0]}x{SIZES[0][1]}"] = out[0].permute(1, 2, 0).numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("resized.npz"), **arrays)


if __name__ == "__main__":
    main()
