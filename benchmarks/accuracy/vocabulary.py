"""What icons are called: words without their marks of style, and words of one meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence

_STYLES = """
outline outlined filled fill solid bold light thin regular medium semibold line linear lines
duotone duo twotone two tone rounded round sharp broken remix bulk baseline stroke roundstroke
mono monochrome alt variant small large big mini micro sm lg xl full one three o f s
"""
STYLES = frozenset(_STYLES.split())
"""Words at the end of names that tell how, not what is drawn."""
NUMBER = re.compile(r"\d+(px)?|v\d+|[a-e]")
"""Other ends of that kind."""
_SYNONYMS = """
add plus, alert warning exclamation, bell notification, bin trash delete, bolt lightning flash,
bike bicycle, bulb lightbulb, cart basket, chat message comment, close x cross cancel,
cog gear settings, cut scissors, document file, drop droplet, duplicate copy,
earth globe world planet, edit pencil pen, envelope mail email, exit logout,
expand fullscreen maximize, fire flame, flask beaker, funnel filter, group users people,
home house, image picture photo, label tag, laptop computer, lamp lightbulb, location pin,
menu list, mic microphone, mobile phone smartphone, monitor desktop screen, package box,
person user, plane airplane, print printer, refresh sync reload repeat, redo forward,
reply undo, shop store, snow snowflake, speaker volume, stopwatch timer, time clock history,
dashboard gauge, attachment paperclip, headset headphones headphone, watch stopwatch,
share export, unlock lock, settings sliders, minus minimize, link unlink, text font,
cloud cloudy, download import, upload export, sun brightness, help question, award medal badge,
suitcase briefcase luggage, ship boat, hash hashtag, next forward, rewind backward
"""
SYNONYMS = tuple(tuple(group.split()) for group in _SYNONYMS.split(","))
"""Words for the same drawing that the sets themselves do not always connect."""


def concept(name: str, styles: tuple[Sequence[str], Sequence[str]] = ((), ())) -> str:
    """What an icon shows, from its name: styles, numbers and sizes taken off.

    Args:
        name: of the icon within its set.
        styles: beginnings and ends by which its set marks styles.

    Example:
        >>> concept("home-2-outline"), concept("baseline-home", (["baseline"], []))
        ('home', 'home')
    """
    for start in sorted(styles[0], key=len, reverse=True):
        if start and name.startswith(f"{start}-"):
            name = name.removeprefix(f"{start}-")
            break
    for end in sorted(styles[1], key=len, reverse=True):
        if end and name.endswith(f"-{end}"):
            name = name.removesuffix(f"-{end}")
            break
    parts = name.split("-")
    while len(parts) > 1 and (parts[-1] in STYLES or NUMBER.fullmatch(parts[-1])):
        parts.pop()
    return "-".join(parts)


def is_word(text: str) -> bool:
    """Whether a concept is one word of at least two letters."""
    return re.fullmatch(r"[a-z]{2,}", text) is not None and text not in STYLES


def pair_of(one: str, other: str) -> tuple[str, str]:
    """Two words in the order of the alphabet."""
    return (one, other) if one < other else (other, one)


def synonyms() -> set[tuple[str, str]]:
    """Every two known words of one meaning."""
    return {
        pair_of(a, b) for group in SYNONYMS for i, a in enumerate(group) for b in group[i + 1 :]
    }
