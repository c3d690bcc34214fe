"""Folding: a folded backbone's forward beside timm's own, in interleaved pairs.

    python benchmarks/speed/folding.py [--backbone NAME] [--img-size PX] [--precision fp32|bf16]

Weights are random: time does not depend on them. Agreement is the distance of readouts over their norm.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from perdure.backbones.catalog import create_backbone
from perdure.backbones.frozen import FrozenBackbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="clip_vit_base_patch16")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    off, auto = (
        create_backbone(
            args.backbone,
            weights="random",
            img_size=args.img_size,
            precision=args.precision,
            fold=fold,
        )
        for fold in ("off", "auto")
    )
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size)
    distance = agreement(off, auto, images)
    plain: list[float] = []
    folded: list[float] = []
    for _ in range(args.pairs):
        plain.append(seconds(off, images))
        folded.append(seconds(auto, images))
    ratios = sorted(a / b for a, b in zip(plain, folded, strict=True))
    print(f"{off.name} at {args.img_size} px, {args.precision}, {torch.get_num_threads()} threads")
    print(f"off   {args.batch_size / statistics.median(plain):.1f} images/s")
    print(f"auto  {args.batch_size / statistics.median(folded):.1f} images/s")
    print(f"auto is {statistics.median(ratios):.3f} x off ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(f"readouts differ by {distance:.1e} of their norm")


@torch.no_grad()
def seconds(backbone: FrozenBackbone, images: torch.Tensor) -> float:
    began = time.perf_counter()
    backbone(images, read="all")
    return time.perf_counter() - began


@torch.no_grad()
def agreement(one: FrozenBackbone, other: FrozenBackbone, images: torch.Tensor) -> float:
    first, second = one(images).cls, other(images).cls
    assert first is not None
    assert second is not None
    return float((first - second).norm() / first.norm())


if __name__ == "__main__":
    main()
