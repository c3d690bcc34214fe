"""A slow, literal twin of CLIP's tokeniser: byte pairs merged one by one, text split by hand."""

from __future__ import annotations

import gzip
import html
import itertools
import unicodedata
from pathlib import Path

import ftfy
import open_clip

START, END, LENGTH = 49406, 49407, 77
MERGES = 49152 - 256 - 2
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def byte_letters() -> list[str]:
    """A visible letter for every byte: itself where it is visible, one above 255 where it is not."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible}
    letters |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def merge_list() -> list[tuple[str, str]]:
    """The merges that open_clip brings along, in order of rank."""
    file = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    return [(line.split()[0], line.split()[1]) for line in lines]


class LiteralTokeniser:
    """Maps texts to token numbers."""

    def __init__(self) -> None:
        self.letters = byte_letters()
        merges = merge_list()
        self.rank = {pair: place for place, pair in enumerate(merges)}
        # Letters are numbered with the visible ones first, then the stand-ins.
        letters = sorted(self.letters)
        tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
        self.number = {token: place for place, token in enumerate(tokens)}

    def __call__(self, text: str) -> list[int]:
        """The numbers of a text between start and end, cut and padded to 77."""
        clean = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        numbers = [START]
        for word in split(" ".join(clean.split()).lower()):
            numbers += [self.number[token] for token in self.merged(word)]
        numbers.append(END)
        if len(numbers) > LENGTH:
            numbers = [*numbers[: LENGTH - 1], END]
        return numbers + [0] * (LENGTH - len(numbers))

    def merged(self, word: str) -> list[str]:
        """The tokens of a word: the pair of lowest rank is joined until none is left."""
        parts = [self.letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while True:
            ranks = [self.rank.get(pair) for pair in itertools.pairwise(parts)]
            known = [rank for rank in ranks if rank is not None]
            if not known:
                return parts
            best, place = min(known), 0
            while place < len(parts) - 1:
                if self.rank.get((parts[place], parts[place + 1])) == best:
                    parts[place : place + 2] = [parts[place] + parts[place + 1]]
                place += 1


def split(text: str) -> list[str]:
    """Contractions, runs of letters, single digits, runs of anything else that is not a space."""
    words, rest = [], text
    while rest:
        size = 1
        found = [one for one in CONTRACTIONS if rest.startswith(one)]
        if found:
            size = len(found[0])
        elif kind(rest) == "space":
            rest = rest[1:]
            continue
        elif kind(rest) != "number":
            while size < len(rest) and kind(rest[size:]) == kind(rest):
                size += 1
        words.append(rest[:size])
        rest = rest[size:]
    return words


def kind(text: str) -> str:
    """What the first character is."""
    if text[0].isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(text[0])[0], "other")
