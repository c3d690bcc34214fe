"""Measure what the published and the exact NSP² conditions leave of a random step's effect.

Prompts learn the first task of digits; a step of the second task is then drawn at random, projected
and stretched back to its length. Printed are, against the step as drawn,

- per block, how much the affinity of the task's tokens with the prompts changes (root mean square
  over all directions, in closed form from the Gram), for a null space of half the dimensions;
- over all blocks, how far the class token's features of the task's images move, for the null
  spaces that the rank rule chooses.

Usage: python benchmarks/accuracy/conditions.py [--img-size 64] [key=value …]
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from torch import Tensor

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import load_config
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.engine.survey import ImageSurvey
from perdure.methods.nsp2 import NSP2, QueryStatistics
from perdure.methods.null_space import Gram
from perdure.methods.options import NSP2Config
from perdure.numerics.subspace import affinity_gram, null_space, projector
from perdure.randomness import generator

STEPS = 5
LENGTH = 0.05
"""Length of a step as a share of the prompts'."""


def kept(change: Tensor, condition: Tensor, rank: int) -> float:
    """Share of the affinity change that steps in a Gram's null space keep, at equal length.

    Args:
        change: Gram of what a step really changes.
        condition: Gram whose least weighed directions the steps stay in.
        rank: how many of them.
    """
    basis = torch.linalg.eigh(condition)[1][:, :rank]
    left = torch.trace(basis.T @ change @ basis) / rank
    return float((left / (torch.trace(change) / len(change))).clamp(min=0).sqrt())


def drift(model: Model, survey: ImageSurvey, sides: dict[str, tuple[Tensor, Tensor]]) -> float:
    """Mean distance that features move under random steps projected from both sides, per block."""
    old = survey.features()[0]
    distances = []
    for number in range(STEPS):
        parameters = dict(model.method.named_parameters())
        before = {name: value.detach().clone() for name, value in parameters.items()}
        with torch.no_grad():
            for name, value in parameters.items():
                drawn = torch.randn(value.shape, generator=generator(0, name, number))
                left, right = sides[name]
                step = left @ drawn.double() @ right
                value.add_((step * (LENGTH * before[name].norm() / step.norm())).float())
            survey(None)
            distances.append(float((survey.features()[0] - old).norm(dim=-1).mean()))
            for name, value in parameters.items():
                value.copy_(before[name])
    survey(None)
    return sum(distances) / STEPS


def main() -> None:
    """Learn one task, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--img-size", default="64")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    overrides = [f"img_size={args.img_size}", "images_per_class=60", *args.overrides]
    config = load_config("digits/nsp2", overrides)
    backbone = make_backbone(config)
    stream = make_stream(config)
    run = Run(config, dataclasses.replace(stream, tasks=stream.tasks[:1]), backbone)
    model = run().model
    method = model.method
    options = config.method
    assert isinstance(method, NSP2)
    assert isinstance(options, NSP2Config)
    survey = ImageSurvey(model, stream.tasks[0])
    seen = QueryStatistics(method.prompts.blocks, options)
    survey(seen)
    dim, spec = backbone.spec.dim, backbone.spec
    print(f"{backbone.name} at {backbone.img_size} px, {seen.images} images of task 1")
    print("block  norm1 scale   affinity change kept: published   exact")
    sides: dict[str, dict[str, tuple[Tensor, Tensor]]] = {"free": {}, "published": {}, "exact": {}}
    for block in method.prompts.blocks:
        scale = spec.norm_scale[block].double()
        published = affinity_gram(seen.sums[Gram("queries", block)], spec.key_weight[block])
        exact = scale[:, None] * published * scale
        shares = [kept(exact, condition, dim // 2) for condition in (published, exact)]
        print(
            f"{block:5d}  {scale.min():5.2f} to {scale.max():4.2f}"
            f"                    {100 * shares[0]:8.2f} % {100 * shares[1]:8.4f} %"
        )
        prompts = method.prompts.matrices[str(block)].detach().double()
        spread = (prompts.var(-1, correction=0) + spec.norm_eps).sqrt()
        second = seen.sums[Gram("aggregation", block)]
        name = f"prompts.matrices.{block}"
        rule = options.rank_rule
        sides["free"][name] = (torch.eye(len(prompts)).double(), torch.eye(dim).double())
        for kind, first, other in (
            ("published", published, second),
            ("exact", exact, second / spread[:, None] / spread),
        ):
            sides[kind][name] = (
                projector(null_space(other, rule)),
                projector(null_space(first, rule)),
            )
    free = drift(model, survey, sides["free"])
    print(f"feature drift under random steps of equal length ({LENGTH:.0%} of the prompts):")
    for kind in ("published", "exact"):
        print(
            f"  {kind:9s} {drift(model, survey, sides[kind]) / free:.4f} of an unprojected step's"
        )


if __name__ == "__main__":
    main()
