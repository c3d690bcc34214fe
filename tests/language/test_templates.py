"""From names of classes to captions."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import LanguageError, UnknownNameError
from perdure.language import TEMPLATES, captions, phrase
from perdure.language.templates import fill, is_plural


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cat", "cat"),
        ("maple_tree", "maple tree"),
        ("_maple__tree_", "maple tree"),
        ("  two \t words\n", "two words"),
        ("n02099601_golden_retriever", "golden retriever"),
        ("n02099601 golden retriever", "golden retriever"),
        ("n01440764_tench,_Tinca_tinca", "tench"),
        ("n01440764 tench, Tinca tinca", "tench"),
        ("n2 highway", "n2 highway"),
        ("n020996011 x", "n020996011 x"),
        ("salt, pepper", "salt, pepper"),
        ("T-shirt/top", "T-shirt/top"),
        ("crème brûlée", "crème brûlée"),
        ("jack-o'-lantern", "jack-o'-lantern"),
        ("747", "747"),
        ("🐈", "🐈"),
        ("n01440764", ""),
        ("_ _", ""),
        ("", ""),
    ],
)
def test_phrase(name: str, words: str) -> None:
    assert phrase(name) == words


@given(st.text(alphabet=string.ascii_letters + "_ é/'9", max_size=20))
def test_phrase_is_done_after_once(name: str) -> None:
    words = phrase(name)
    assert phrase(words) == words
    assert "_" not in words
    assert words == words.strip()
    assert "  " not in words


@pytest.mark.parametrize(
    ("words", "plural"),
    [
        ("trousers", True),
        ("ankle boots", True),
        ("Poppies", True),
        ("cat", False),
        ("boots of a cat", False),
        ("bus", False),
        ("glass", False),
        ("cactus", False),
        ("tennis", False),
        ("gas", False),
        ("", False),
    ],
)
def test_is_plural(words: str, plural: bool) -> None:
    assert is_plural(words) is plural


@pytest.mark.parametrize(
    ("template", "words", "text"),
    [
        ("a photo of a {}.", "cat", "a photo of a cat."),
        ("a photo of a {}.", "apple", "a photo of a apple."),
        ("a photo of a {}.", "trousers", "a photo of trousers."),
        ("a {} in a video game.", "sandals", "sandals in a video game."),
        ("a photo of the {}.", "sandals", "a photo of the sandals."),
        ("a photo of a {}.", "a {} b", "a photo of a a {} b."),
    ],
)
def test_fill(template: str, words: str, text: str) -> None:
    assert fill(template, words) == text


def test_template_sets() -> None:
    assert set(TEMPLATES) == {"photo", "cifar", "imagenet"}
    assert TEMPLATES["photo"] == ("a photo of a {}.",)
    for name, templates in TEMPLATES.items():
        assert len(set(templates)) == len(templates), name
        assert all(template.count("{}") == 1 for template in templates), name


def test_captions_are_listed_by_the_names_given() -> None:
    assert captions(["n02099601_golden_retriever", "Sandals"], "photo") == {
        "n02099601_golden_retriever": ("a photo of a golden retriever.",),
        "Sandals": ("a photo of Sandals.",),
    }
    assert len(captions(["cat"], "cifar")["cat"]) == len(TEMPLATES["cifar"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "n01440764"], r"class 'n01440764' has no words for a caption\. .* as n01440764_t"),
        (["cat", ""], r"class '' has no words"),
        (["maillot", "n03710637_maillot,_tank_suit"], r"'maillot' and 'n03710637_maillot,_tank"),
        (["maple_tree", "maple tree"], r"are both 'maple tree' in words: .* Rename one, or take"),
    ],
)
def test_names_that_give_no_text_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(LanguageError, match=message):
        captions(names, "photo")


def test_unknown_template_set() -> None:
    with pytest.raises(UnknownNameError, match=r"template set 'photos'\. Did you mean 'photo'\?"):
        captions(["cat"], "photos")
