"""How a command line is read: errors with a did-you-mean, help that ends with examples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from perdure.errors import ConfigError, did_you_mean, unknown_name


class UsageError(ConfigError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """Raises perdure's errors instead of printing a usage text and exiting.

    Args:
        *args: as for ``argparse.ArgumentParser``.
        **kwargs: as for ``argparse.ArgumentParser``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {
            "formatter_class": argparse.RawDescriptionHelpFormatter,
            "allow_abbrev": False,
        }
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message[:1].upper()}{message[1:]}. Try `{self.prog} --help`.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise unknown_name(action.metavar or action.dest, str(value), action.choices)  # type: ignore[arg-type]

    def refuse_unknown(self, extras: Sequence[str]) -> None:
        """Refuse arguments that belong nowhere.

        Raises:
            UsageError: there is one.
        """
        if extras:
            guess = did_you_mean(extras[0].partition("=")[0], self._option_string_actions)
            raise UsageError(f"Unknown argument '{extras[0]}'.{guess} Try `{self.prog} --help`.")


def examples(*lines: str) -> str:
    """Return the lines that end a help."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def add_command(
    verbs: Any, name: str, does: str, handler: str, lines: Sequence[str], rest: str = ""
) -> Parser:
    """Add a command.

    Args:
        verbs: where to.
        name: name of the command.
        does: one line.
        handler: ``module:function``, imported when the command is given.
        lines: examples, which end the help.
        rest: the list that takes words which stand after an option.
    """
    made = add_group(verbs, name, does, lines)
    made.set_defaults(handler=handler, rest=rest)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def add_group(verbs: Any, name: str, does: str, lines: Sequence[str]) -> Parser:
    """Add a command that does nothing without another word."""
    made: Parser = verbs.add_parser(
        name, help=does, description=does[0].upper() + does[1:] + ".", epilog=examples(*lines)
    )
    made.set_defaults(handler=None, parser=made, rest="", again=None)
    return made


def names(text: str) -> tuple[str, ...]:
    """Read names joined by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def positives(text: str) -> tuple[int, ...]:
    """Read whole numbers of 1 or more, joined by commas."""
    return tuple(positive(part) for part in text.split(","))


def positive(text: str) -> int:
    """Read a whole number of 1 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _whole(text, 1)


def counts(text: str) -> tuple[int, ...]:
    """Read whole numbers of 0 or more, joined by commas."""
    return tuple(_whole(part, 0) for part in text.split(","))


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
    return value
