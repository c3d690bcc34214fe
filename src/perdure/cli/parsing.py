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
        **kwargs: likewise.
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
