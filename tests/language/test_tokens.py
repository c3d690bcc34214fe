"""The tokeniser that text towers get, against a literal twin, on names that are awkward."""

from __future__ import annotations

import pytest

from perdure.language import captions
from tests.reference.bpe_literal import LENGTH, LiteralTokeniser

AWKWARD = [
    "",
    " ",
    "cat",
    "maple_tree",
    "__init__",
    "crème brûlée",
    "Ångström Ñandú",
    "jack-o'-lantern",
    "it's o'clock, we'll've",
    "T-shirt/top",
    "7",
    "Boeing 747-400 №3 ½",
    "AT&T &amp;amp; co <b>",
    "猫",
    "кошка",
    "🐈‍⬛ black cat",
    "tab\tand  spaces\n",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "very long " * 60,
    "x" * 500,
]


@pytest.fixture(scope="module")
def twin() -> LiteralTokeniser:
    return LiteralTokeniser()


@pytest.mark.parametrize("name", AWKWARD, ids=[repr(name[:20]) for name in AWKWARD])
def test_tokens_are_those_of_byte_pairs(twin: LiteralTokeniser, name: str) -> None:
    import open_clip

    tokenise = open_clip.get_tokenizer("ViT-B-16")
    texts = [name, f"a photo of a {name}."]
    found = tokenise(texts)
    assert found.shape == (2, LENGTH)
    assert found.tolist() == [twin(text) for text in texts]


def test_long_names_are_cut_at_the_end(twin: LiteralTokeniser) -> None:
    (text,) = captions(["wide " * 200], "photo")["wide " * 200]
    tokens = twin(text)
    assert 0 not in tokens
    assert tokens[0] == 49406
    assert tokens[-1] == 49407
    assert len(set(tokens[6:-1])) == 1
