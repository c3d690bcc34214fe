"""CODA-Prompt: prefixes are sums of components, weighted by attention on the image's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perdure.backbones.additions import Additions, block_numbers
from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.options import CodaPromptConfig
from perdure.methods.sensitivity import sensitivity_guard
from perdure.numerics.merge import merge
from perdure.types import BackboneSpec, Generators, Task


@METHODS.register("coda_prompt")
class CodaPrompt(Method):
    """CODA-Prompt (Smith et al., CVPR 2023), the backbone frozen too.

    ``old_*`` are the components of finished tasks, frozen; ``new_*`` those of the current one.
    """

    config: CodaPromptConfig

    def __init__(self, spec: BackboneSpec, config: CodaPromptConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.blocks = block_numbers(spec, config.prompt_blocks, "prompt_blocks")
        self.widths = {"prompts": config.prompt_length * spec.dim, "keys": spec.dim}
        self.widths["attention"] = spec.dim
        self.new = nn.ParameterDict()
        shapes = {f"prompts_{block}": (config.prompt_length, spec.dim) for block in self.blocks}
        self.guard = sensitivity_guard(config, self.new, shapes, generator)
        for block in self.blocks:
            for kind, width in self.widths.items():
                self.register_buffer(f"old_{kind}_{block}", torch.zeros(0, width))

    @property
    def first_block(self) -> int:
        """First block with a prefix."""
        return min(self.blocks)

    def start_task(self, task: Task) -> None:
        """Freeze the components so far and add new ones, orthogonal to them and to each other.

        A task of one class takes no step: its prompts are zero, so that features stay.
        """
        for block in self.blocks:
            for kind, width in self.widths.items():
                name = f"{kind}_{block}"
                if name in self.new:
                    self.register_buffer(f"old_{name}", self._all(kind, block).detach().clone())
                drawn = torch.empty(self.config.components, width)
                drawn.uniform_(0, 1, generator=self.generator(f"{name}.{task.index}"))
                old = self.get_buffer(f"old_{name}")
                rows = _orthonormal(drawn, old.cpu()).to(old.device)
                idle = kind == "prompts" and len(task.classes) == 1
                self.new[name] = nn.Parameter(torch.zeros_like(rows) if idle else rows)

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Σ_m α_m P_m with α_m = cos(q ⊙ A_m, K_m), as half keys and half values."""
        added = self._mixed(query)
        if task is None:
            return added
        return replace(added, penalties={"orthogonality": self._penalty()})

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """The sums that each image gets, which a component's update changes by α times itself."""
        return {
            f"prompts_{block}": torch.cat(pair, dim=1)
            for block, pair in self._mixed(query).prefix.items()
        }

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Add these sums, as half keys and half values."""
        halves = {block: prompts[f"prompts_{block}"].chunk(2, dim=1) for block in self.blocks}
        return Additions(prefix={block: (one[0], one[1]) for block, one in halves.items()})

    def oracle(self, query: Float[Tensor, "b d"] | None, task: Task) -> Additions:
        """The components that were there when the task was learned, and none of later tasks."""
        return self._mixed(query, (task.index + 1) * self.config.components)

    def merge(self, before: Mapping[str, Tensor], task: Task, exponent: float) -> None:
        """Scale the prompts of the task's own components: by them alone it changed the sums."""
        for block in self.blocks:
            new = self.new[f"prompts_{block}"]
            new.copy_(merge(torch.zeros_like(new), new, task.index + 1, exponent))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The current task's components."""
        return [{"params": list(self.new.parameters()), "lr": lr}]

    def _mixed(self, query: Float[Tensor, "b d"] | None, count: int | None = None) -> Additions:
        """The weighted sums of the first ``count`` components, or of all."""
        assert query is not None
        half = self.config.prompt_length // 2
        prefix, records = {}, {}
        for block in self.blocks:
            prompts, keys, attention = (self._all(kind, block)[:count] for kind in self.widths)
            alpha = component_weights(query, attention, keys)
            mixed = (alpha @ prompts).unflatten(1, (-1, self.spec.dim))
            prefix[block] = (mixed[:, :half], mixed[:, half:])
            records[f"selection.{block}"] = alpha.detach().abs()
        return Additions(prefix=prefix, records=records)

    def _all(self, kind: str, block: int) -> Float[Tensor, "m w"]:
        return torch.cat([self.get_buffer(f"old_{kind}_{block}"), self.new[f"{kind}_{block}"]])

    def _penalty(self) -> Float[Tensor, ""]:
        """λ Σ over blocks and kinds of the mean squared entry of B Bᵀ − I.

        Entries between old rows never change and have no gradient: they count as 0.
        """
        total = torch.zeros((), device=next(self.parameters()).device)
        for block in self.blocks:
            for kind in self.widths:
                new, old = self.new[f"{kind}_{block}"], self.get_buffer(f"old_{kind}_{block}")
                own = new @ new.T - torch.eye(len(new), device=new.device)
                entries = own.square().sum() + 2 * (new @ old.T).square().sum()
                total = total + entries / (len(new) + len(old)) ** 2
        return self.config.orthogonality * total


def component_weights(
    query: Float[Tensor, "b d"], attention: Float[Tensor, "m d"], keys: Float[Tensor, "m d"]
) -> Float[Tensor, "b m"]:
    """α_m = cos(q ⊙ A_m, K_m), without the b × m × d tensor of all products."""
    unit = F.normalize(keys, dim=-1)
    length = (query.square() @ attention.square().T).clamp(min=1e-24).sqrt()
    return query @ (attention * unit).T / length


def _orthonormal(drawn: Float[Tensor, "n d"], old: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """Gram-Schmidt of new rows against old and new ones; rows that find no room are only made unit."""
    old = old[old.any(dim=1)]  # those of a task of one class are zero
    rows = F.normalize(drawn.double(), dim=-1)
    fit = max(0, min(len(rows), rows.shape[1] - len(old)))
    taken = torch.linalg.qr(old.double().T)[0]
    rest = rows[:fit].T
    for _ in range(2):  # once more for what rounding left
        rest = rest - taken @ (taken.T @ rest)
    basis, triangle = torch.linalg.qr(rest)
    return torch.cat([(basis * triangle.diagonal().sign()).T, rows[fit:]]).float()
