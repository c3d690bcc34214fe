"""From a configuration to the stream and the backbone it names."""

from __future__ import annotations

from pathlib import Path

from perdure.backbones.catalog import create_backbone
from perdure.backbones.vit import FrozenViT
from perdure.engine.config import Config
from perdure.engine.events import Event, Sink, ignore
from perdure.streams import SourceOptions, Stream, StreamOptions, build_stream


def make_backbone(config: Config, sink: Sink = ignore) -> FrozenViT:
    """Create the frozen backbone of a run.

    Raises:
        BackboneError: it cannot be built, found or fetched.
    """
    run = config.run

    def tell(text: str) -> None:
        sink(Event("progress", fields={"phase": text}))

    return create_backbone(
        run.backbone,
        weights=run.weights,
        img_size=run.img_size,
        precision=run.precision,
        device=run.device,
        seed=run.seed,
        on_progress=tell,
    )


def make_stream(config: Config, img_size: int) -> Stream:
    """Load the images of a run and cut them into tasks.

    Args:
        config: names the source and the protocol.
        img_size: side of the images that the backbone takes.

    Raises:
        StreamError: images that cannot be used, or sizes and orders that do not fit the classes.
        ConfigError: an option that cannot be read.
    """
    run = config.run
    return build_stream(
        StreamOptions(
            source=run.stream,
            tasks=run.tasks,
            class_order=run.class_order,
            seed=run.seed,
            validation_fraction=run.validation_fraction,
            transform=run.transform,
            img_size=img_size,
            source_options=SourceOptions(
                path=Path(run.path) if run.path is not None else None,
                images_per_class=run.images_per_class,
                test_images_per_class=run.test_images_per_class,
                test_fraction=run.test_fraction,
                image_column=run.image_column,
                label_column=run.label_column,
                skip_unreadable=run.skip_unreadable,
            ),
        )
    )
