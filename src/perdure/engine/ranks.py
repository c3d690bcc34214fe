"""Ranks: the processes that learn one run together, each on its share of the images.

A training batch is cut into shares, and gradients are averaged by numbers of images. Surveys and
evaluations are cut between whole batches, so that every forward is one that a single process would
make: what is gathered in data set order is the same, bit for bit.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perdure.errors import ConfigError, RankError
from perdure.streams import Subset, batch_count
from perdure.types import Observer

T = TypeVar("T")


class Ranks:
    """A process alone: it has the whole of everything, and nothing is exchanged.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        device: where this process is to compute; None leaves it to the configuration.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes and tells."""
        return self.rank == 0

    def check_batch(self, size: int) -> None:
        """Refuse a batch of fewer images than there are ranks.

        Raises:
            ConfigError: it has.
        """
        if size < self.count:
            raise ConfigError(
                f"batch_size={size} is shared by {self.count} processes, and some would have no "
                f"image. Type batch_size={self.count} or more, or start at most {size}."
            )

    def share(self, positions: list[int]) -> list[int]:
        """Return this rank's share of a training batch.

        Where the last batch of an epoch has fewer images than there are ranks, those without one take
        the first, which then weighs nothing.
        """
        own = self._own(len(positions))
        return positions[own.start : own.stop] or positions[:1]

    def weight(self, size: int) -> float:
        """Share of a training batch of ``size`` images that is this rank's, in [0, 1]."""
        return len(self._own(size)) / size

    def shard(self, subset: Subset, batch_size: int) -> tuple[Subset, int]:
        """Return this rank's part of a subset, of whole batches, and the position that it begins at."""
        own = self._own(batch_count(len(subset), batch_size))
        part = slice(own.start * batch_size, own.stop * batch_size)
        if own.start == 0 and part.stop >= len(subset):
            return subset, 0
        cut = replace(subset, indices=subset.indices[part], labels=subset.labels[part])
        return cut, part.start

    def done(self, own: int, total: int) -> int:
        """Batches that all ranks have done together where this one has done ``own``, at equal pace."""
        return min(own * self.count, total)

    def sum_gradients(
        self, parameters: Sequence[nn.Parameter], terms: Mapping[str, float], weight: float
    ) -> dict[str, float]:
        """Replace gradients by those of the whole batch, and return the loss terms of it.

        Args:
            parameters: those that are trained.
            terms: this rank's loss terms: means over its images, or functions of parameters alone.
            weight: `weight` of the batch.
        """
        return dict(terms)

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the rows of all ranks, in data set order.

        Args:
            parts: of every batch of this rank's `shard`; none where it has no batch.
        """
        return torch.cat(list(parts))

    def each(self, batches: Iterator[Iterable[T]], total: int) -> Iterator[T]:
        """Iterate over what all ranks make of their batches, a batch of every rank in turn.

        Args:
            batches: what is made of each batch of this rank's `shard`.
            total: number of batches of all ranks.
        """
        return itertools.chain.from_iterable(batches)

    def merge(self, observer: Observer) -> None:
        """Merge into an observer what those of the other ranks have seen."""

    def reduce(self, value: T, join: Callable[[T, T], T]) -> T:
        """Return what all ranks have, joined two by two in the order of ranks."""
        return value

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what rank 0 makes; what it raises is raised everywhere."""
        return make()

    def align(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy rank 0's values into these tensors: decompositions may differ in their last bits."""

    def _own(self, count: int) -> range:
        """This rank's part of ``count`` things in a row; the first ranks have more."""
        first, stop = (-(-count * rank // self.count) for rank in (self.rank, self.rank + 1))
        return range(first, stop)


ALONE = Ranks()
"""The one process that most runs have."""


class Group(Ranks):
    """Ranks of a process group of torch.distributed, the default one.

    Args:
        rank: number of this process.
        count: number of processes.
        device: where this process computes.
    """

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count, self.device = rank, count, device

    def sum_gradients(
        self, parameters: Sequence[nn.Parameter], terms: Mapping[str, float], weight: float
    ) -> dict[str, float]:
        """All-reduce one vector: weighted gradients, which of them there are, and loss terms."""
        gradients = [p.grad for p in parameters]
        known = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        kind = known[0].new_tensor
        there = kind([float(g is not None) for g in gradients])
        values = kind([terms[name] for name in sorted(terms)]) * weight
        flat = torch.cat([*(g.flatten() * weight for g in known), there, values])
        with self._exchange():
            dist.all_reduce(flat)
        sizes = [*(g.numel() for g in known), len(there), len(values)]
        *summed, there, values = flat.split(sizes)
        for parameter, total, any_there in zip(parameters, summed, there.tolist(), strict=True):
            parameter.grad = total.view_as(parameter).clone() if any_there else None
        return dict(zip(sorted(terms), values.tolist(), strict=True))

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """Broadcast every rank's rows in turn, as bytes: numbers of rows differ."""
        own = torch.cat(list(parts)).contiguous() if parts else None
        told = None if own is None else (own.shape, own.dtype)
        shapes: list[Any] = [None] * self.count
        with self._exchange():
            dist.all_gather_object(shapes, told)
        rows = []
        for rank, found in enumerate(shapes):
            if found is None:
                continue
            shape, dtype = found
            part = own if rank == self.rank else torch.empty(shape, dtype=dtype, device=self.device)
            assert part is not None, "this rank told a shape"
            self._broadcast(part, rank)
            rows.append(part)
        return torch.cat(rows)

    def each(self, batches: Iterator[Iterable[T]], total: int) -> Iterator[T]:
        """Exchange a round at a time; a rank that has no batch left gives nothing."""
        for _ in range(-(-total // self.count)):
            own = list(next(batches, ()))
            everyone: list[Any] = [None] * self.count
            with self._exchange():
                dist.all_gather_object(everyone, _encoded(own))
            for content in everyone:
                yield from self._decoded(content)

    def merge(self, observer: Observer) -> None:
        """Reduce what observers hold; callables, such as methods of models, every rank has itself."""

        def join(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
            vars(observer).update(one)
            twin = copy.copy(observer)
            vars(twin).update(other)
            observer.merge(twin)
            return _contents(observer)

        merged: dict[str, Any] = self.reduce(_contents(observer), join)
        vars(observer).update(merged)

    def reduce(self, value: T, join: Callable[[T, T], T]) -> T:
        """Join along a binary tree towards rank 0, which sends the result to all."""
        step = 1
        while step < self.count:
            if self.rank % (2 * step) == step:
                with self._exchange():
                    dist.send_object_list([_encoded(value)], self.rank - step)
                break
            if self.rank + step < self.count:
                received: list[Any] = [None]
                with self._exchange():
                    dist.recv_object_list(received, self.rank + step)
                value = join(value, self._decoded(received[0]))
            step *= 2
        return self.from_first(lambda: value)

    def from_first(self, make: Callable[[], T]) -> T:
        """Make on rank 0 and broadcast, an error too."""
        value, error = None, None
        sent: list[Any] = [None, True]
        if self.first:
            try:
                value = make()
                sent = [_encoded(value), True]
            except Exception as problem:
                error, sent = problem, [str(problem), False]
        with self._exchange():
            dist.broadcast_object_list(sent, 0)
        if error is not None:
            raise error
        content, fine = sent
        if not fine:
            raise RankError(f"Rank {self.rank} stops, because rank 0 does: {content}")
        if self.first:
            return cast("T", value)
        received: T = self._decoded(content)
        return received

    def align(self, tensors: Mapping[str, Tensor]) -> None:
        """Broadcast rank 0's values."""
        for name in sorted(tensors):
            held = tensors[name]
            sent = held.contiguous()
            self._broadcast(sent, 0)
            if sent.data_ptr() != held.data_ptr():
                held.copy_(sent)

    def _broadcast(self, tensor: Tensor, source: int) -> None:
        if tensor.numel():
            with self._exchange(), torch.no_grad():
                dist.broadcast(tensor.view(-1).view(torch.uint8), source)

    def _decoded(self, content: bytes) -> Any:
        """Read what another rank encoded; its tensors on a GPU come to this rank's."""
        here = {f"cuda:{index}": str(self.device) for index in range(torch.cuda.device_count())}
        return torch.load(io.BytesIO(content), map_location=here, weights_only=False)

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Tell the failure of an exchange as what it means.

        Raises:
            RankError: another rank has ended, or cannot be reached.
        """
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RankError(
                f"Rank {self.rank} of {self.count} stops: another rank has ended or cannot be "
                f"reached ({reason}). The rank that ended says why, unless it was killed. Go on from "
                "the last checkpoint with --resume, on as many processes as you like."
            ) from error


def _encoded(value: Any) -> bytes:
    """Bytes of a value that travels between ranks, which run the same program and trust each other."""
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _contents(observer: Observer) -> dict[str, Any]:
    return {name: value for name, value in vars(observer).items() if not callable(value)}


def refuse_differences(ranks: Ranks, facts: Mapping[str, object], what: str) -> None:
    """Refuse ranks that do not agree.

    Args:
        ranks: all of them call this.
        facts: what is to be the same everywhere, by name.
        what: what the facts are of, in words.

    Raises:
        ConfigError: on every rank, the first facts that differ, with the ranks' values.
    """
    told = {name: str(value) for name, value in facts.items()}
    everyone = ranks.reduce({ranks.rank: told}, lambda one, other: {**one, **other})
    mine = everyone[0]
    differing = [
        f"{name} is {mine.get(name)} on rank 0 and {theirs.get(name)} on rank {rank}"
        for rank, theirs in sorted(everyone.items())
        for name in sorted({*mine, *theirs})
        if theirs.get(name) != mine.get(name)
    ]
    if differing:
        raise ConfigError(
            f"The processes of a run need the same {what}: {'; '.join(differing[:3])}. Start them "
            "with one command, from one installation and on the same images."
        )
