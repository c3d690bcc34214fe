"""Building a run's backbone, stream and text features from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from perdure.backbones.attention import emulation
from perdure.backbones.catalog import create_backbone
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.config import Config
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import check_backbone
from perdure.errors import ConfigError
from perdure.heads import HEADS
from perdure.language import text_features
from perdure.methods import METHODS
from perdure.streams import Stream, build_stream, load_source


def make_backbone(config: Config, sink: Sink = ignore) -> FrozenBackbone:
    """Create the frozen backbone of a run.

    Raises:
        BackboneError: it cannot be built, found or fetched, or is not for this method and its heads.
    """
    check_device(config)

    def tell(text: str) -> None:
        sink(Event("progress", fields={"phase": text}))

    backbone = create_backbone(
        config.training.backbone,
        weights=config.training.weights,
        img_size=config.training.img_size,
        precision=config.runtime.precision,
        device=config.runtime.device,
        attention=config.runtime.attention,
        fold=config.runtime.fold,
        seed=config.training.seed,
        on_progress=tell,
        # Before weights and images are read, and before a text tower is fetched.
        check=lambda spec: check_backbone(spec, config.method_class, config),
    )
    if config.runtime.survey_precision == "bf16" and backbone.precision != "bf16":
        raise ConfigError(
            "survey_precision=bf16: this run computes in fp32. Add precision=bf16, or take "
            "survey_precision=auto, which follows the run."
        )
    if slower := emulation(backbone.dtype, backbone.device):
        text = (
            f"precision=bf16: this CPU emulates bf16; a matrix product takes {slower:.1f} times as "
            "long as in fp32. Take precision=fp32."
        )
        sink(Event("note", fields={"text": text}))
    return backbone


def check_device(config: Config) -> None:
    """Refuse what a device cannot compute.

    Raises:
        ConfigError: prompts, or heads behind an image projection, on Apple's ``mps``.
    """
    if not config.runtime.device.startswith("mps"):
        return
    projected = any(HEADS.declared[c.kind].needs_projection for c in config.built_heads.values())
    if projected or not config.traits.frozen_features:
        able = [
            name
            for name, declared in METHODS.declared.items()
            if declared.traits.frozen_features
            and not any(HEADS.declared[head].needs_projection for head in declared.traits.heads)
        ]
        raise ConfigError(
            f"device={config.runtime.device}: there, frozen features alone are computed, by "
            f"{', '.join(able)}. Type device=cpu for '{config.training.method}'."
        )


def make_stream(config: Config, *, fetch: bool = True) -> Stream:
    """Load the images of a run and cut them into tasks; see `load_source` and `build_stream`."""
    stream, seed = config.stream, config.training.seed
    return build_stream(stream, seed, load_source(stream, seed, fetch=fetch))


def with_text(stream: Stream, config: Config, *, fetch: bool = True) -> Stream:
    """Attach text features to the tasks, where a head asks for them.

    Args:
        stream: its class names say what the texts are about.
        config: names the source of the texts.
        fetch: whether a text tower may be run, and fetched; without, it is only looked up.

    Raises:
        LanguageError: texts or a source of them that cannot be used.
        ConfigError: a source that cannot be read, or that does not exist.
    """
    vectors = text_of(stream.class_names, config, fetch=fetch)
    if vectors is None:
        return stream
    row = {name: place for place, name in enumerate(stream.class_names)}
    tasks = [
        replace(
            data,
            task=replace(data.task, text_features=vectors[[row[name] for name in data.task.names]]),
        )
        for data in stream.tasks
    ]
    return replace(stream, tasks=tuple(tasks))


def text_of(
    names: Sequence[str], config: Config, *, fetch: bool = True
) -> Float[Tensor, "c e"] | None:
    """Text features of classes, where a head asks for them; see `with_text`."""
    heads = config.heads
    if not config.needs_text:
        return None
    return text_features(heads.text_features, heads.templates, names, fetch=fetch)
