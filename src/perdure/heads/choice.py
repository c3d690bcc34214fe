"""Choice of heads in a configuration, each with options of its own; needs no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from perdure.errors import ConfigError, unknown_name
from perdure.heads.catalog import HEADS
from perdure.heads.config import HeadConfig, HeadOptions
from perdure.keys import build, keys_of, parse_value, split_list

_FORM = re.compile(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", re.DOTALL)
_PLAIN = re.compile(r"[\w./:+-]+")


@dataclass(frozen=True)
class HeadChoice:
    """Chosen head with options of its own, which win over those that all heads share.

    Attributes:
        kind: a registered head.
        own: its options in alphabetical order.
    """

    kind: str
    own: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Canonical name of the choice, as it can be typed.

        Examples:
            >>> choose_head("gaussian( shrinkage = 1 )").name
            'gaussian(shrinkage=1.0)'
        """
        own = ",".join(f"{key}={_text(value)}" for key, value in self.own)
        return f"{self.kind}({own})" if own else self.kind

    def options(self, shared: HeadConfig) -> HeadOptions:
        """Every option of the head.

        Args:
            shared: options of all heads.
        """
        config = HEADS.declared[self.kind].Config
        defaults = {key: getattr(shared, key) for key in keys_of(config) if hasattr(shared, key)}
        options: HeadOptions = build(config, {**defaults, **dict(self.own)})
        return options


def choose_head(text: str) -> HeadChoice:
    """Read a head as users type it: ``gaussian``, or ``gaussian(shrinkage=validation)``.

    Raises:
        UnknownNameError: no such head, or an option that it does not have.
        ConfigError: another form, or a value that an option does not allow.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ConfigError(
            f"heads={text!r}: a head is a name, or a name with options of its own, as "
            "gaussian(shrinkage=validation)."
        )
    kind, inside = form[1], (form[2] or "").strip()
    config = HEADS.declared[kind].Config
    own: dict[str, Any] = {}
    for part in split_list(inside) if inside else ():
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ConfigError(
                f"heads={text!r}: '{part.strip()}' is not of the form option=value, as "
                "gaussian(shrinkage=validation)."
            )
        if key in own:
            raise ConfigError(f"heads={text!r}: option '{key}' is given twice.")
        own[key] = parse_value(value)
    _refuse_unknown(kind, own)
    built = build(config, own)
    return HeadChoice(kind, tuple((key, getattr(built, key)) for key in sorted(own)))


def file_name(head: str) -> str:
    """Return a head's name in a form that is safe in the names of files; no two heads share one.

    Examples:
        >>> file_name("gaussian(shrinkage=validation)")
        'gaussian,shrinkage=validation'
    """
    kind, _, own = head.partition("(")
    return quote(f"{kind},{own.removesuffix(')')}" if own else kind, safe=",=+")


def _refuse_unknown(kind: str, own: Iterable[str]) -> None:
    known = keys_of(HEADS.declared[kind].Config)
    for key in own:
        if not known:
            raise ConfigError(f"heads='{kind}({key}=…)': head '{kind}' has no options of its own.")
        if key not in known:
            raise unknown_name("option", key, known, f" of head '{kind}'")


def _text(value: Any, plain: bool = True) -> str:
    """Write a value so that `parse_value` reads it again; in a list, text stands in quotes."""
    if isinstance(value, str):
        as_typed = value == "none" or (_PLAIN.fullmatch(value) and parse_value(value) == value)
        readable = plain and as_typed
        return value if readable else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(item, plain=False) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else repr(value)
