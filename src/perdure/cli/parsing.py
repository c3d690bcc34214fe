"""Command-line parser: errors with a did-you-mean, help that ends with examples."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from perdure.errors import ConfigError, did_you_mean, unknown_name


class UsageError(ConfigError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """Raises perdure's errors instead of printing a usage text and exiting."""

    def __init__(self, **kwargs: Any) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=form, allow_abbrev=False, **kwargs)

    def argument(self, name: str, metavar: str, about: str, **more: Any) -> None:
        """Add a word that stands at its place."""
        self.add_argument(name, metavar=metavar, help=about, **more)

    def option(self, name: str, metavar: str, about: str = "", **more: Any) -> None:
        """Add an option with a value; a default is told by its help."""
        default = more.get("default")
        if default:
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            about = "; ".join(filter(None, (about, f"default: {shown}")))
        self.add_argument(name, metavar=metavar, help=about, **more)

    def flag(self, *names: str) -> None:
        """Add an option without a value: its names, then its help."""
        self.add_argument(*names[:-1], action="store_true", help=names[-1])

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
    return "examples:\n" + "\n".join(f"  {line}".rstrip() for line in lines)


def add_command(
    verbs: Any,
    name: str,
    handler: Callable[[argparse.Namespace], int],
    *,
    rest: str = "",
    again: str | None = None,
) -> Parser:
    """Add a command, whose help is the docstring of its handler.

    Args:
        verbs: the subparsers that it joins.
        name: what is typed.
        handler: carries it out and returns the exit code.
        rest: the list that takes words which stand after an option.
        again: the option that goes on after Ctrl-C; empty where the same words do, None where
            nothing goes on.
    """
    does, _, lines = (handler.__doc__ or "").partition("\n\n    Examples:\n")
    does = does[:1].lower() + does[1:].removesuffix(".")
    command = add_group(verbs, name, does, *textwrap.dedent(lines).rstrip().splitlines())
    command.set_defaults(handler=handler, rest=rest, again=again)
    command.flag("--json", "print the result as JSON")
    add_import(command, "more_imports")
    return command


def add_group(verbs: Any, name: str, does: str, *lines: str) -> Parser:
    """Add a command that does nothing without another word."""
    group: Parser = verbs.add_parser(
        name, help=does, description=f"{does[:1].upper()}{does[1:]}.", epilog=examples(*lines)
    )
    group.set_defaults(handler=None, parser=group, rest="", again=None)
    return group


def add_import(parser: Parser, dest: str) -> None:
    """Add ``--import``; argparse forgets what stood before a command unless it goes by another name."""
    about = "a module of yours that registers methods, heads or data; may be given again"
    parser.option("--import", "MODULE", about, dest=dest, action="append", default=[])


def names(text: str) -> tuple[str, ...]:
    """Read names joined by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def whole(text: str, least: int) -> int:
    """Read a whole number of ``least`` or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
    return value


positive, count = partial(whole, least=1), partial(whole, least=0)
"""Readers of a whole number of 1, and of 0, or more."""


def positives(text: str) -> tuple[int, ...]:
    """Read whole numbers of 1 or more, joined by commas."""
    return tuple(map(positive, text.split(",")))


def counts(text: str) -> tuple[int, ...]:
    """Read whole numbers of 0 or more, joined by commas."""
    return tuple(map(count, text.split(",")))
