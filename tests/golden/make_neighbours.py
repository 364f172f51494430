"""Makes a golden case of DiNAT's attention to neighbours, with NATTEN's own functions.

    python tests/golden/make_neighbours.py DIR
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23, torch and natten 0.14. transformers' class gives NATTEN rows, columns and heads in a wrong
order, and cannot run; these are the functions that it calls, on the order that they take. So the case proves nothing of
transformers, and `docs/models.md` does not count it.
"""

import argparse
import math
import pathlib

import torch
from make_content import config, save
from natten.functional import natten2dav, natten2dqkrpb

SIZES = (9, 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    dilations = [[1, 2, 3], [2]]
    settings = config("dinat", embed_dim=4, depths=[3, 1], num_heads=[2, 4], dilations=dilations, kernel_size=3)
    arrays = {}
    for stage, heads in enumerate(settings.num_heads):
        for layer, dilation in enumerate(dilations[stage]):
            place, rpb = f"stages.{stage}.{layer}", torch.randn(heads, 5, 5)
            query, keys, value = torch.randn(3, 1, heads, *SIZES, 2)
            weights = natten2dqkrpb(query / math.sqrt(2), keys, rpb, 3, dilation).softmax(-1)
            tokens = {
                "in.query": query,
                "in.key": keys,
                "in.value": value,
                "out": natten2dav(weights, value, 3, dilation),
            }
            arrays |= {f"{name}.{place}": x.flatten(2, 3).transpose(1, 2) for name, x in tokens.items()}
            arrays |= {f"in.grid.{place}": torch.tensor(SIZES)}
            arrays[f"par.encoder.levels.{stage}.layers.{layer}.attention.self.rpb"] = rpb
    save(folder, "neighbours", "dinat", "natten", settings, "natten2dqkrpb, softmax, natten2dav", arrays)


if __name__ == "__main__":
    main()
