"""Task increments: new classes, the same classes in a new domain, or both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.streams.config import Increment
from perdure.streams.sources.base import Domains, Source
from perdure.streams.tasks import task_sizes
from perdure.wording import listed

_WITHOUT = "or leave increment out: then every task brings new classes."


@dataclass(frozen=True)
class Cut:
    """Classes, domains and outputs of every task.

    Tasks bring *outputs*: a class, or where the same classes come again in other domains a class in
    one of them. No two tasks share an output.

    Attributes:
        sizes: outputs of each task.
        outputs: source label and domain of each output, in order of arrival; domain 0 where none
            matters.
        domains: name of each task's domain; empty where none matters.
        repeats: whether the same class comes in several tasks.
        notes: notes for the user.
    """

    sizes: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    domains: tuple[str, ...] = ()
    repeats: bool = False
    notes: tuple[str, ...] = ()

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First output of each task, and the one after its last."""
        ends = np.cumsum(self.sizes).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def outputs_of(self, source: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the output of every training and test image; −1 for those that no task shows."""
        train, test = source.train.labels, source.test.labels
        domains = source.domains
        if domains is None or not self.domains:
            domains = Domains(("",), np.zeros_like(train), np.zeros_like(test))
        arrival = np.full((len(source.class_names), len(domains.names)), -1, dtype=np.int64)
        for output, place in enumerate(self.outputs):
            arrival[place] = output
        return arrival[train, domains.train], arrival[test, domains.test]


def cut(
    source: Source,
    order: Sequence[int],
    tasks: str | Sequence[int],
    increment: Increment = "classes",
    domains: Sequence[str] = (),
) -> Cut:
    """Assign classes and domains to tasks.

    - ``classes``: the next classes in order, as many as ``tasks`` says.
    - ``domains``: a task per domain, in order, with all classes that have images there; ``tasks`` is
      not read.
    - ``classes+domains``: the next classes in order, as many as ``tasks`` says, shown in one domain;
      domains take turns. A class belongs to the domain of its task: its images elsewhere are left
      out. A domain passes its turn where too few of the classes left have images in it.

    Args:
        source: the data set.
        order: source labels in order of arrival.
        tasks: ``"Bm-Incn"`` or explicit sizes, see ``task_sizes``.
        increment: what every task brings that is new.
        domains: names of the domains wanted, in order; all of them in the source's order if empty.

    Raises:
        ConfigError: a domain that there is not.
        StreamError: sizes that do not fit, or images that do not make such a stream.
    """
    if increment == "classes":
        if domains:
            raise ConfigError(
                f"domains={','.join(domains)} has no use: tasks are formed by classes alone. Add "
                "increment=domains or increment=classes+domains, or leave domains out."
            )
        return Cut(task_sizes(tasks, len(order)), tuple((label, 0) for label in order))
    if source.domains is None:
        raise StreamError(
            f"Data set '{source.name}' does not say in which domain its images are, and increment="
            f"{increment} asks for that. Give a table with a column 'domain', {_WITHOUT}"
        )
    places = _chosen(source.name, source.domains, domains, increment)
    has_images = _shown(source, source.domains, places)
    absent = [source.class_names[label] for label in order if not has_images[label, places].any()]
    left = [label for label in order if has_images[label, places].any()]
    notes = (f"No image in these domains, so left out: {listed(absent)}.",) if absent else ()
    if increment == "domains":
        return _by_domain(source, left, places, has_images, notes)
    return _in_turn(source, left, tasks, places, has_images, notes)


def _chosen(name: str, domains: Domains, wanted: Sequence[str], increment: str) -> list[int]:
    """Return the positions of the chosen domains."""
    used = np.unique(np.concatenate([domains.train, domains.test])).tolist()
    known = {domains.names[place]: place for place in used}
    for one in wanted:
        if one not in known:
            raise ConfigError(
                f"domains={','.join(wanted)}: there is no domain '{one}'.{did_you_mean(one, known)} "
                f"Data set '{name}' has: {', '.join(known)}."
            )
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"domains={','.join(wanted)}: each domain at most once.")
    places = [known[one] for one in wanted] or used
    if len(places) == 1:
        what = f"domains={wanted[0]} names" if wanted else f"Data set '{name}' has"
        raise StreamError(
            f"{what} one domain ('{domains.names[places[0]]}'), and increment={increment} needs "
            f"two. Add images of another domain, {_WITHOUT}"
        )
    return places


def _shown(source: Source, domains: Domains, places: Sequence[int]) -> Bool[np.ndarray, "c d"]:
    """Return which classes have images in which domain."""
    counts = np.zeros((2, len(source.class_names), len(domains.names)), np.int64)
    np.add.at(counts[0], (source.train.labels, domains.train), 1)
    np.add.at(counts[1], (source.test.labels, domains.test), 1)
    for place in places:
        for this, other, what, missing in (
            (counts[0], counts[1], "training", "test"),
            (counts[1], counts[0], "test", "training"),
        ):
            alone = np.flatnonzero((this[:, place] > 0) & (other[:, place] == 0))
            if len(alone):
                names = listed([f"'{source.class_names[label]}'" for label in alone])
                raise StreamError(
                    f"In domain '{domains.names[place]}' of source '{source.name}' there are {what} "
                    f"images of {names}, but no {missing} image. A class needs both in a domain, or "
                    "neither: add images, or remove those."
                )
    has_images: Bool[np.ndarray, "c d"] = counts[0] > 0
    return has_images


def _by_domain(
    source: Source,
    order: Sequence[int],
    places: Sequence[int],
    shown: Bool[np.ndarray, "c d"],
    notes: tuple[str, ...],
) -> Cut:
    """Cut a stream into one task per domain."""
    assert source.domains is not None
    if (shown[:, places].sum(1) <= 1).all():
        raise StreamError(
            f"Data set '{source.name}' shows every class in one domain only, so no class would come "
            "again in another. Type increment=classes+domains (new classes of one domain in every "
            "task), take images of the same classes in several domains (data=domainnet), "
            f"{_WITHOUT}"
        )
    parts = [[(label, place) for label in order if shown[label, place]] for place in places]
    names = tuple(source.domains.names[place] for place in places)
    notes += (f"Every domain is a task: {', '.join(names)}. The key tasks is not read.",)
    for name, part in zip(names, parts, strict=True):
        here = {label for label, _ in part}
        missing = [f"'{source.class_names[label]}'" for label in order if label not in here]
        if missing:
            notes += (f"The domain '{name}' has no images of {listed(missing)}.",)
    outputs = tuple(output for part in parts for output in part)
    return Cut(tuple(len(part) for part in parts), outputs, names, True, notes)


def _in_turn(
    source: Source,
    order: Sequence[int],
    tasks: str | Sequence[int],
    places: Sequence[int],
    shown: Bool[np.ndarray, "c d"],
    notes: tuple[str, ...],
) -> Cut:
    """Cut a stream into tasks of new classes, each in one domain."""
    assert source.domains is not None
    sizes, left, turn = task_sizes(tasks, len(order)), list(order), 0
    outputs: list[tuple[int, int]] = []
    names: list[str] = []
    for index, size in enumerate(sizes):
        turns = [(turn + step) % len(places) for step in range(len(places))]
        pools = {one: [label for label in left if shown[label, places[one]]] for one in turns}
        fits = [one for one in turns if len(pools[one]) >= size]
        if not fits:
            most = max(turns, key=lambda one: len(pools[one]))
            raise StreamError(
                f"Task {index + 1} wants {size} classes of one domain, but of the {len(left)} classes "
                f"left at most {len(pools[most])} are in one ('{source.domains.names[places[most]]}'). "
                "Take smaller tasks, as tasks=B0-Inc1, or another order of classes."
            )
        chosen = pools[fits[0]][:size]
        outputs += [(label, places[fits[0]]) for label in chosen]
        left = [label for label in left if label not in chosen]
        names.append(source.domains.names[places[fits[0]]])
        turn = fits[0] + 1
    if len(set(names)) == 1:
        raise StreamError(
            f"Every task would be in the domain '{names[0]}': tasks={tasks} leaves no other its turn. "
            f"Take smaller tasks, as tasks=B0-Inc1, {_WITHOUT}"
        )
    notes += (f"Domains of the tasks: {', '.join(names)}.",)
    return Cut(sizes, tuple(outputs), tuple(names), False, notes)
