"""Captions: class names in templates, as a text tower reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.errors import LanguageError
from perdure.registry import Declaration, Registry

TEMPLATES: Registry[tuple[str, ...], Declaration] = Registry("template set", Declaration)

TEMPLATES.register("photo")(("a photo of a {}.",))
TEMPLATES.register("cifar")(
    (
        "a photo of a {}.",
        "a photo of the {}.",
        "a blurry photo of a {}.",
        "a low contrast photo of a {}.",
        "a bad photo of a {}.",
        "a close-up of the {}.",
    )
)
TEMPLATES.register("imagenet")(
    (
        "a photo of a {}.",
        "a photo of many {}.",
        "a bad photo of the {}.",
        "a close-up photo of the {}.",
        "a drawing of a {}.",
        "a painting of the {}.",
        "a sculpture of a {}.",
        "a {} in a video game.",
    )
)

_SYNSET = re.compile(r"n\d{8}(?:\s+|$)")
_ARTICLE = re.compile(r"\ban? (?=\{\})")
_SHORTEST_PLURAL = 4


def phrase(name: str) -> str:
    """Return a class name as the words of a caption.

    Underscores become spaces. A synset id in front goes, and with it all but the first of the
    synonyms that WordNet lists behind it. Nothing else is changed: accents, digits, slashes and
    apostrophes are the tokeniser's business.

    Examples:
        >>> phrase("maple_tree"), phrase("n01440764_tench,_Tinca_tinca")
        ('maple tree', 'tench')
    """
    words = " ".join(name.replace("_", " ").split())
    bare = _SYNSET.sub("", words, count=1) if _SYNSET.match(words) else words
    return bare if bare == words else bare.partition(",")[0].strip()


def is_plural(words: str) -> bool:
    """Guess whether a phrase is a plural, by the end of its last word.

    Examples:
        >>> [is_plural(words) for words in ("trousers", "bus", "glass", "tennis", "two roses")]
        [True, False, False, False, True]
    """
    last = words.rpartition(" ")[2].casefold()
    ends = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    return len(last) >= _SHORTEST_PLURAL and ends


def fill(template: str, words: str) -> str:
    """Put a phrase into a template; before a plural the template's article goes.

    Examples:
        >>> fill("a photo of a {}.", "cat"), fill("a photo of a {}.", "trousers")
        ('a photo of a cat.', 'a photo of trousers.')
    """
    return (_ARTICLE.sub("", template) if is_plural(words) else template).replace("{}", words)


def captions(names: Sequence[str], templates: str) -> dict[str, tuple[str, ...]]:
    """Return the captions of every class, by its name.

    Args:
        names: names of the classes.
        templates: a set of `TEMPLATES`.

    Raises:
        UnknownNameError: no such set.
        LanguageError: a name without words, or two classes of the same words.
    """
    chosen = TEMPLATES[templates]
    named: dict[str, str] = {}
    for name in names:
        words = phrase(name)
        if not words:
            raise LanguageError(
                f"The class '{name}' has no words for a caption. Call it by what it shows, as "
                "n01440764_tench, or take class_embeddings=mean."
            )
        if words in named:
            raise LanguageError(
                f"The classes '{named[words]}' and '{name}' are both '{words}' in words: no text "
                "could tell them apart. Rename one, or take class_embeddings=mean."
            )
        named[words] = name
    return {name: tuple(fill(one, words) for one in chosen) for words, name in named.items()}
