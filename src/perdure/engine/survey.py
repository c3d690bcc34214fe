"""Surveys: passes over a task's images without gradients, for statistics and features."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model
from perdure.numerics.sensitivity import evenly_spaced
from perdure.streams import Batch, Subset, TaskData, batch_count, batches, build_transform
from perdure.streams.transforms import Side
from perdure.types import BlockView, CachedTokens, Observer, Split

MOST_BYTES = 2 << 30  # kept of a task's tokens


def ordered_batches(model: Model, subset: Subset, side: Side = "test") -> Iterator[Batch]:
    """Iterate over a subset in data set order, under the test side of the transform by default."""
    config = model.config
    return batches(
        subset,
        config.runtime.eval_batch_size,
        transform=config.training.transform,
        side=side,
        img_size=model.backbone.img_size,
        seed=config.training.seed,
        task=0,
        epoch=None,
        workers=config.runtime.workers,
    )


class KnownTokens:
    """Tokens of a task's training images before the method's first block, computed once.

    Training and surveys begin at them. Batches are those of a survey, so that a run that goes on
    after an interruption finds the same bits.

    Args:
        model: its method says which block is the first.
        data: the task's images.
        sink: receives progress events.
    """

    def __init__(self, model: Model, data: TaskData, sink: Sink = ignore) -> None:
        self._model, self._data, self._sink = model, data, sink
        self._of: dict[tuple[str, int], CachedTokens] = {}

    def of(self, backbone: FrozenBackbone) -> CachedTokens | None:
        """Return the tokens as the model's backbone or its float32 twin computes them.

        None where the method's first block is the very first, where images are augmented, or where
        the tokens of this one and of the one that trains would fill more than `MOST_BYTES`.
        """
        block, spec = self._model.method.first_block, backbone.spec
        transform = self._model.config.training.transform
        if block == 0 or not build_transform(transform, backbone.img_size).deterministic:
            return None
        numbers = (spec.prefix_tokens + spec.patches_in(block)) * spec.width(block)
        bytes_each = sum(dtype.itemsize for dtype in {self._model.backbone.dtype, backbone.dtype})
        if len(self._data.train) * numbers * bytes_each > MOST_BYTES:
            return None
        key = backbone.precision, block
        if key not in self._of:
            tokens = _once(
                self._model,
                self._data,
                self._sink,
                lambda images: backbone.advance(backbone.normalise(images), block).tokens,
            )
            self._of[key] = CachedTokens(tokens, block)
        return self._of[key]


def known_queries(model: Model, data: TaskData, sink: Sink = ignore) -> Float[Tensor, "n d"] | None:
    """Return the plain backbone's class tokens of the training images, computed once.

    None where the method asks for none or the run does not keep them.
    """
    if not (model.method.traits.needs_query and model.config.training.cache_queries):
        return None

    def query(images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        found = model.plain(images).cls
        assert found is not None
        return found

    return _once(model, data, sink, query)


@torch.no_grad()
def _once(
    model: Model,
    data: TaskData,
    sink: Sink,
    compute: Callable[[UInt8[Tensor, "b 3 s s"]], Tensor],
) -> Tensor:
    """Return ``compute`` of the task's training images, in data set order."""
    found, ranks, size = [], model.ranks, model.config.runtime.eval_batch_size
    total, (part, _) = batch_count(len(data.train), size), ranks.shard(data.train, size)
    for done, batch in enumerate(ordered_batches(model, part, "train"), start=1):
        found.append(compute(batch.images))
        fields = {"phase": "features", "done": ranks.done(done, total), "total": total}
        sink(Event("progress", data.task.index, fields))
    return ranks.gather(found)


Images = UInt8[Tensor, "b 3 s s"] | CachedTokens
Queries = dict[Split, list[Float[Tensor, "b d"] | None]]
"""Class tokens of the plain backbone by split, a tensor per batch of a survey."""


class Float32Views:
    """Observer that hands blocks on in float32, whatever the survey computes in."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Hand the batch on."""
        self._observer.start_batch(positions, total, labels)

    def block(self, index: int, view: BlockView) -> None:
        """Hand the block on, its tensors in float32."""
        attended, queries = view.prompt_attention, view.queries
        made = dataclasses.replace(
            view,
            inputs=view.inputs.float(),
            normed=view.normed.float(),
            queries=None if queries is None else queries.float(),
            keys=view.keys.float(),
            prompt_attention=None if attended is None else attended.float(),
        )
        self._observer.block(index, made)

    def merge(self, other: Float32Views) -> None:
        """Join what the observers saw."""
        self._observer.merge(other._observer)


class ImageSurvey:
    """Survey of a task's images: evaluation transform, test-time additions, as ``survey_precision``.

    Readouts of a pass are kept, so that heads fitted after it need no pass of their own. A survey
    is therefore good for as long as what the method adds stays as it is.

    Args:
        model: its backbone and its method's additions at test time.
        data: the current task's images.
        sink: receives progress events.
        queries: those of the same images that another survey has computed; they never change, so
            that surveys of a task share them.
        tokens: of the training images, at which passes without an observer begin; by default all
            begin at the pixels.
    """

    def __init__(
        self,
        model: Model,
        data: TaskData,
        sink: Sink = ignore,
        queries: Queries | None = None,
        tokens: KnownTokens | None = None,
    ) -> None:
        self._model = model
        self._queries = {} if queries is None else queries
        self._tokens = tokens
        self._splits: dict[Split, Subset | None] = {"train": data.train, "val": data.val}
        self._task = data.task.index
        self._sink = sink
        self._features: dict[tuple[Split, bool], Float[Tensor, "n d"]] = {}
        self._mirrored: dict[Split, Float[Tensor, "n d"]] = {}
        self._plain_readouts: Float[Tensor, "n d"] | None = None

    def __call__(self, observer: Observer | None, split: Split = "train") -> None:
        """Show every image of the split to the observer, in data set order."""
        subset, size = self._subset(split), self._model.config.runtime.eval_batch_size
        start = self._shard(subset)[1]
        seen = None if observer is None else Float32Views(observer)
        model, known = self._model, self._queries.setdefault(split, [])
        places = itertools.count()

        def readout(images: Images) -> Float[Tensor, "b d"]:
            place = next(places)
            if observer is not None:
                assert not isinstance(images, CachedTokens), "an observer sees every block"
                positions = start + size * place + torch.arange(len(images))
                observer.start_batch(positions, len(subset), subset.labels[positions])
            if place == len(known):
                known.append(model.query(images, survey=True))
            query = known[place]
            return model.forward(images, observer=seen, survey=True, query=query)[0].float()

        self._features[split, False] = self._pass(split, readout, pixels=observer is not None)
        if observer is not None:
            model.ranks.merge(observer)

    def features(
        self, split: Split = "train", plain: bool = False, mirrored: bool = False
    ) -> tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]:
        """Return readouts and labels of the split; computed once.

        With ``plain``, class tokens of the plain backbone; with ``mirrored``, readouts of every image
        and of its mirror image.
        """
        if mirrored:
            features, labels = self.features(split)
            if split not in self._mirrored:
                self._mirrored[split] = self._pass(split, self._mirror, pixels=True)
            return torch.stack([features, self._mirrored[split]], dim=1), labels
        plain = plain and not self._model.method.traits.frozen_features
        if (split, plain) not in self._features:
            if plain:
                self._features[split, plain] = self._pass(split, self._plain)
            else:
                self(None, split)
        features = self._features[split, plain]
        return features, self._subset(split).labels.to(features.device)

    def plain_readouts(self) -> Float[Tensor, "n d"]:
        """Return what the training images' readouts are with nothing added; computed once."""
        model = self._model
        if model.method.traits.frozen_features:
            return self.features("train")[0]
        if self._plain_readouts is None:
            nothing = model.method.nothing_added()
            self._plain_readouts = self._pass(
                "train",
                lambda images: model.forward(images, survey=True, additions=nothing)[0].float(),
            )
        return self._plain_readouts

    def gradients(
        self, probes: Callable[[int], Float[Tensor, "k d"]], most: int
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Yield the gradients of what probes read of each training image, see `Survey.gradients`.

        Prompts are handed over as one copy per image, so that one backward gives every image its own.
        """
        model, subset = self._model, self._subset("train")
        chosen = evenly_spaced(len(subset), most)
        part = dataclasses.replace(
            subset, indices=subset.indices[chosen], labels=subset.labels[chosen]
        )
        total = batch_count(len(part), model.config.runtime.eval_batch_size)
        shard, first = self._shard(part)

        def own() -> Iterator[Iterator[Mapping[str, Tensor]]]:
            for done, batch in enumerate(ordered_batches(model, shard), start=1):
                places = [chosen[first + int(one)] for one in batch.positions]
                yield self._gradients_of(batch, torch.stack([probes(one) for one in places]))
                self._tell(done, total)

        yield from model.ranks.each(own(), total)

    def _gradients_of(
        self, batch: Batch, vectors: Float[Tensor, "b k d"]
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Yield, probe by probe, the gradients of a batch."""
        model = self._model
        method, query = model.method, model.query(batch.images, survey=True)
        own = method.image_prompts(query, len(batch.labels))
        prompts = {name: value.detach().clone().requires_grad_() for name, value in own.items()}
        with torch.enable_grad():
            added = method.additions_of(prompts, query)
            readout = model.forward(batch.images, survey=True, additions=added)[0].float()
            read = torch.einsum("bd,bkd->k", readout, vectors.to(readout)).unbind()
        for number, value in enumerate(read, start=1):
            found = torch.autograd.grad(
                value, list(prompts.values()), retain_graph=number < len(read)
            )
            yield dict(zip(prompts, found, strict=True))

    def _mirror(self, images: Images) -> Float[Tensor, "b d"]:
        assert not isinstance(images, CachedTokens), "tokens are of images as they are"
        model, mirrored = self._model, images.flip(-1)
        query = model.query(mirrored, survey=True)
        return model.forward(mirrored, survey=True, query=query)[0].float()

    def _plain(self, images: Images) -> Float[Tensor, "b d"]:
        found = self._model.plain(images, survey=True).cls
        assert found is not None
        return found.float()

    @torch.no_grad()
    def _pass(
        self, split: Split, compute: Callable[[Images], Tensor], pixels: bool = False
    ) -> Float[Tensor, "n d"]:
        """Return ``compute`` of every image of the split, in data set order."""
        found = []
        total = batch_count(len(self._subset(split)), self._model.config.runtime.eval_batch_size)
        for done, images in enumerate(self._images(split, pixels), start=1):
            found.append(compute(images))
            self._tell(done, total)
        return self._model.ranks.gather(found)

    def _images(self, split: Split, pixels: bool) -> Iterator[Images]:
        """Iterate over this rank's batches of a split, as tokens where these are known."""
        model, (shard, first) = self._model, self._shard(self._subset(split))
        known = None
        if self._tokens is not None and split == "train" and not pixels:
            known = self._tokens.of(model.survey_backbone)
        if known is None:
            yield from (batch.images for batch in ordered_batches(model, shard))
            return
        for positions in torch.arange(first, first + len(shard)).split(
            model.config.runtime.eval_batch_size
        ):
            yield known.take(positions)

    def _shard(self, subset: Subset) -> tuple[Subset, int]:
        """This rank's part of a subset, and the position that it begins at."""
        return self._model.ranks.shard(subset, self._model.config.runtime.eval_batch_size)

    def _tell(self, done: int, total: int) -> None:
        """Tell the progress of all ranks where this one has done so many batches."""
        done = self._model.ranks.done(done, total)
        fields = {"phase": "survey", "done": done, "total": total}
        self._sink(Event("progress", self._task, fields))

    def has(self, split: Split) -> bool:
        """Tell whether the split holds any image."""
        subset = self._splits[split]
        return subset is not None and len(subset) > 0

    def _subset(self, split: Split) -> Subset:
        subset = self._splits[split]
        if subset is None:
            raise ValueError(f"the stream has no {split} split")
        return subset
