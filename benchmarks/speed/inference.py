"""Predicting: operations beside the plain backbone's, and ONNX Runtime's time beside ours.

    python benchmarks/speed/inference.py

Prints a table of counted operations for every method that looks at an image once, and the seconds
of one image through `nsp2`, in turn with the exported file. Weights are random: neither depends on
them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from operations import inference_operations, single_pass_methods, table

from perdure.backbones.catalog import create_backbone
from perdure.backbones.frozen import FrozenBackbone
from perdure.bench.training import random_pixels
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.learner import ContinualClassifier
from perdure.learner.export.exported import export_model
from perdure.types import Task

CLASSES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="vit_base_patch16_224.augreg_in21k")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    backbone = create_backbone(
        args.backbone, weights="random", img_size=args.img_size, precision="fp32", device="cpu"
    )
    threads = torch.get_num_threads()
    print(f"{backbone.name} at {args.img_size} px, float32, {threads} threads, one image\n")
    methods = single_pass_methods(projection=backbone.spec.projection is not None)
    print(table([inference_operations(built(method, backbone)) for method in methods]))
    ours, theirs = timed(built("nsp2", backbone), args.pairs, threads)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(f"\nperdure       {1e3 * statistics.median(ours):.1f} ms")
    print(f"ONNX Runtime  {1e3 * statistics.median(theirs):.1f} ms, {ratio:.2f} of perdure's")


def built(method: str, backbone: FrozenBackbone) -> Model:
    model = Model(backbone, make_config({"method": method, "backbone": backbone.name}))
    names = tuple(map(str, range(CLASSES)))
    model.start_task(Task(0, tuple(range(CLASSES)), names, CLASSES))
    return model


def timed(model: Model, pairs: int, threads: int) -> tuple[list[float], list[float]]:
    """Seconds of one image, in turn, after one round that is not counted."""
    pixels = random_pixels(model.backbone, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_model(ContinualClassifier.from_model(model), file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    ours, theirs = [], []
    for _ in range(pairs + 1):
        began = time.perf_counter()
        model.logits(pixels)
        between = time.perf_counter()
        session.run(None, {"images": pixels.numpy()})
        theirs.append(time.perf_counter() - between)
        ours.append(between - began)
    return ours[1:], theirs[1:]


if __name__ == "__main__":
    main()
