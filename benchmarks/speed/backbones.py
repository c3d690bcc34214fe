"""Backbones: images per second of those that are listed as small and fast, and of a ViT-B beside them.

    python benchmarks/speed/backbones.py [--precision fp32|bf16] [--repeats N]

Weights are random: time does not depend on them. The best of all repeats is told, since other work on
the machine can only slow a run down.
"""

from __future__ import annotations

import argparse
import time

import torch

from perdure.backbones.catalog import create_backbone
from perdure.backbones.listing import entries

BATCH = 8
BESIDE = "vit_base_patch16_224.augreg_in21k"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print(f"{args.precision}, {torch.get_num_threads()} threads, batches of {BATCH}")
    for entry in entries():
        if entry.use != "small" and entry.name != BESIDE:
            continue
        backbone = create_backbone(entry.name, weights="random", precision=args.precision)
        images = torch.randn(BATCH, 3, backbone.img_size, backbone.img_size)
        seconds = []
        with torch.no_grad():
            for _ in range(args.repeats):
                began = time.perf_counter()
                backbone(images)
                seconds.append(time.perf_counter() - began)
        print(f"{entry.name:<45} {backbone.img_size} px {BATCH / min(seconds):8.1f} images/s")


if __name__ == "__main__":
    main()
