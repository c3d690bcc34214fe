"""Class orders: in which order the classes of a data set arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perdure.cache import expanded
from perdure.class_names import class_name
from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.wording import listed

ORDERS = ("nsp2", "pilot", "sorted")
PILOT_SEED = 1993


def class_order(order: str, class_count: int, class_names: Sequence[str], seed: int) -> list[int]:
    """Return the source labels in order of arrival.

    Args:
        order: ``nsp2``: ``numpy.random.Generator(PCG64(seed)).shuffle(arange(C))``;
            ``pilot``: the permutation that ``numpy.random.seed(1993)`` gives, whatever the seed;
            ``sorted``: the source's own labels 0, 1, 2, … (for folders the alphabet);
            otherwise the path of a text file with one class name per line, or one label per line.
        class_count: number of classes C.
        class_names: the source's class names, by source label.
        seed: seed of the run, at least 0.

    Returns:
        A permutation of ``range(class_count)``: entry k is the k-th class to arrive.

    Raises:
        ConfigError: the order is neither known nor a file.
        StreamError: the file is not a permutation of the classes.

    Examples:
        >>> class_order("sorted", 3, ["cat", "dog", "eel"], seed=0)
        [0, 1, 2]
    """
    if order == "nsp2":
        labels = np.arange(class_count)
        np.random.Generator(np.random.PCG64(seed)).shuffle(labels)
        return [int(label) for label in labels]
    if order == "pilot":
        # A private legacy generator: the global one stays as it is.
        legacy = np.random.RandomState(PILOT_SEED)
        return [int(label) for label in legacy.permutation(class_count)]
    if order == "sorted":
        return list(range(class_count))
    path = expanded(order)
    if not path.is_file():
        raise ConfigError(
            f"class_order={order} is neither known nor a file.{did_you_mean(order, ORDERS)} "
            f"Allowed: {', '.join(ORDERS)}, or the path of a text file with one class name or "
            "label per line."
        )
    return _order_from_file(path, class_count, class_names)


def _order_from_file(path: Path, class_count: int, class_names: Sequence[str]) -> list[int]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StreamError(
            f"Cannot read the class order '{path}': {error}. It must be a UTF-8 text file with one "
            "class name or label per line."
        ) from error
    lines = [
        class_name(line, f"line {number} of '{path}'", "class")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    by_name = {name: label for label, name in enumerate(class_names)}
    by_label = {str(label): label for label in range(class_count)}
    # A file of numbers holds labels, unless every one of them is a class name as well.
    numbers = bool(lines) and all(line.isdecimal() for line in lines)
    named = not numbers or all(line in by_name for line in lines)
    known = by_name if named else by_label
    unknown = [line for line in lines if line not in known]
    duplicate = [line for line, count in Counter(lines).items() if count > 1]
    missing = [name for name in known if name not in lines]
    faults = []
    if unknown:
        faults.append("unknown: " + listed([_quoted(line, known) for line in unknown]))
    if duplicate:
        faults.append("more than once: " + listed([f"'{line}'" for line in duplicate]))
    if missing:
        faults.append("missing: " + listed([f"'{name}'" for name in missing]))
    if faults:
        kind = "class name" if named else f"label from 0 to {class_count - 1}"
        raise StreamError(
            f"The class order '{path}' does not fit the data set; {'; '.join(faults)}. "
            f"Write every {kind} exactly once, one per line ({class_count} lines)."
        )
    return [known[line] for line in lines]


def _quoted(line: str, known: dict[str, int]) -> str:
    hint = did_you_mean(line, known).strip()
    return f"'{line}' ({hint})" if hint else f"'{line}'"
