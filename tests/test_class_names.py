"""One spelling for every class, and errors that name what is no class."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.class_names import (
    class_name,
    class_names,
    joined_by_name,
    look_alikes,
    ordered_names,
    printable,
)
from perdure.errors import StreamError


@pytest.mark.parametrize(
    "value", [7, 7.0, "7", "7.0", " 7 ", np.int8(7), np.float32(7), torch.tensor(7)]
)
def test_a_whole_number_is_one_class_however_it_is_typed(value: Any) -> None:
    assert class_name(value, "image 0") == "7"


@pytest.mark.parametrize(
    "value", ["café", unicodedata.normalize("NFD", "café"), "\u200bcafé\ufeff", "\tcafé "]
)
def test_a_text_is_one_class_however_it_is_written(value: str) -> None:
    assert class_name(value, "image 0") == "café"


@pytest.mark.long
@given(st.text())
def test_a_name_is_its_own_name(text: str) -> None:
    try:
        name = class_name(text, "image 0")
    except StreamError:
        return
    assert class_name(name, "image 0") == name


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (pd.NA, "missing"),
        (pd.NaT, "missing"),
        (True, "truth value"),
        (np.bool_(False), "truth value"),
        (torch.tensor(True), "truth value"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        ("", "empty"),
        ("\u200b ", "empty"),
        ([0, 1], "2 values"),
        (np.eye(3)[0], "3 values"),
        (torch.zeros(40), "40 values"),
        ("caf\udce9", r"caf\\udce9"),
    ],
)
def test_what_is_no_class_is_named_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(StreamError, match=f"image 3.*{said}"):
        class_names(["a", "b", "c", value], "image {}".format)


def test_texts_and_numbers_are_not_mixed() -> None:
    with pytest.raises(StreamError, match="texts and some are numbers"):
        class_names(["1", 2], "image {}".format)


def test_names_are_in_the_order_of_their_values_where_all_are_whole() -> None:
    assert ordered_names(["10", "9", "10", "-1"]) == ("-1", "9", "10")
    assert ordered_names(["10", "9", "a"]) == ("10", "9", "a")
    for names in (["1", "01", "001", "2"], ["001", "2", "01", "1"]):  # of one value by the alphabet
        assert ordered_names(names) == ("001", "01", "1", "2")


def test_two_spellings_of_one_name_are_refused_with_both() -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert joined_by_name({decomposed: [1], "tea": [2]}, "photos") == {"café": [1], "tea": [2]}
    with pytest.raises(StreamError, match="one name spelled in two ways"):
        joined_by_name({decomposed: [1], "café": [2]}, "photos")


def test_names_that_differ_in_case_or_form_alone_look_alike() -> None:
    assert look_alikes(["Cat", "dog", "cat", "\uff23at", "ox  cart", "ox cart"]) == [
        ("Cat", "cat", "\uff23at"),
        ("ox  cart", "ox cart"),
    ]


def test_control_characters_are_shown_escaped() -> None:
    assert printable("a\x1b[31mb\nc") == r"a\x1b[31mb\nc"
