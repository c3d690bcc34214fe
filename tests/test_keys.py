"""Keys: declared once, with range, default, help and roles."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from perdure.engine.config import PARTS
from perdure.errors import ConfigError
from perdure.keys import Roles, build, defaults_of, key, keys_of, parse_value
from perdure.learner import ContinualClassifier
from perdure.learner.settings import OF_RUNS, PARAMETERS, PER_LESSON
from perdure.streams.config import StreamConfig


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        name: needed.
        rate: a number.
        sizes: a list.
        kind: a choice.
    """

    name: str = key(names_run=True)
    rate: Annotated[float, Ge(0)] = key(0.5, neutral=True, per_lesson=True)
    sizes: tuple[int, ...] = (1,)
    kind: Literal["plain", "fancy"] = "plain"


def test_lists_of_keys_come_from_their_declarations() -> None:
    assert keys_of(Part) == ("name", "rate", "sizes", "kind")
    assert keys_of(Part, role="neutral") == keys_of(Part, role="per_lesson") == ("rate",)
    assert keys_of(Part, role="names_run") == ("name",)
    assert defaults_of(Part) == {"rate": 0.5, "sizes": (1,), "kind": "plain"}
    with pytest.raises(TypeError, match="netural"):
        key(0, netural=True)


def test_a_part_is_built_and_checked() -> None:
    assert build(Part, {"name": "a", "sizes": 3}) == Part("a", sizes=(3,))
    for values, message in (
        ({"name": "a", "rate": -1}, "rate=-1: "),
        ({"name": "a", "sizes": ["x"]}, "sizes="),
        ({"name": "a", "kind": "fanzy"}, r"kind='fanzy': .* Did you mean 'fancy'\?"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(Part, values)


def test_none_is_the_word_where_a_key_allows_it() -> None:
    @dataclass(frozen=True)
    class Words:
        merge: Literal["none", "mean"] | float = 1.0
        logger: Literal["board"] | None = "board"

    made = build(Words, {"merge": parse_value("none"), "logger": parse_value("none")})
    assert (made.merge, made.logger) == ("none", None)


def test_roles_agree_with_the_classifier() -> None:
    """A key is free between lessons, fixed, or of runs alone; its own parameters are its signature."""
    signature = {*inspect.signature(ContinualClassifier).parameters}
    assert {*PARAMETERS} == signature - {"options", "calibration_fraction"}
    assert not {*PER_LESSON} & {*OF_RUNS}
    assert {*keys_of(StreamConfig)} <= {*PER_LESSON, *OF_RUNS}
    assert all(keys_of(*PARTS, role=role.name) for role in dataclasses.fields(Roles)), (
        "a role that no key has"
    )
