"""The error family: every error says what was given, what is allowed and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from perdure.wording import printable


class PerdureError(Exception):
    """Base of every error that perdure raises on purpose. Its text is meant for the user."""


class ConfigError(PerdureError):
    """A configuration key or value that is not allowed."""


class UnknownNameError(ConfigError):
    """A name that no registry, preset or field knows."""


class BackboneError(PerdureError):
    """A backbone that cannot be built, loaded or used by the chosen method."""


class ChecksumError(PerdureError):
    """A file whose content is not what was expected."""


class StreamError(PerdureError):
    """A data set, an image or a split that cannot be used."""


class UnreadableImageError(StreamError):
    """One or more image files that cannot be decoded."""


class LanguageError(PerdureError):
    """Class texts or text features that are missing or cannot be used."""


class CheckpointError(PerdureError):
    """A checkpoint or saved model that is missing, damaged or of another configuration."""


class OutputError(PerdureError):
    """An output folder that cannot be written or already holds something else."""


class BusyError(OutputError):
    """An output folder in which another process is at work."""


class RankError(PerdureError):
    """Processes that learn together and cannot be started, or lost one of them."""


class ExportError(PerdureError):
    """A model that cannot be exported, or an exported file that disagrees with the model."""


class JobError(PerdureError):
    """A job in another process that failed or did not come back."""


class DivergenceError(PerdureError):
    """A loss that is not finite: training has diverged."""


def first_line(error: BaseException) -> str:
    """Return the kind of an error that others raised, and the first line of its text."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest allowed name, or an empty string.

    Args:
        given: the text that the user typed.
        allowed: every name that would have been accepted.
    """
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.55)
    return f" Did you mean '{printable(close[0])}'?" if close else ""


def unknown_name(
    kind: str, given: str, allowed: Iterable[str], where: str = ""
) -> UnknownNameError:
    """Build the error for a name that is not known.

    Args:
        kind: kind of name, such as ``"method"``.
        given: as for `did_you_mean`.
        allowed: as for `did_you_mean`.
        where: context of the name, such as ``" of nsp2"``.
    """
    names = sorted(allowed)
    return UnknownNameError(
        f"Unknown {kind} '{given}'{where}.{did_you_mean(given, names)} Known: {', '.join(names)}."
    )
