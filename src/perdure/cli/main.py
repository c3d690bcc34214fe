"""The ``perdure`` command: gives a command to the file that does it, and turns ends into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from perdure.cli.definitions import parser
from perdure.cli.parsing import Parser
from perdure.errors import ConfigError, PerdureError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def read(root: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; words after options count too."""
    args, extras = root.parse_known_args(words)
    rest = getattr(args, "rest", "")
    if rest:
        options = [extra for extra in extras if extra.startswith("-") and extra != "-"]
        words_left = [extra for extra in extras if extra not in options]
        setattr(args, rest, [*getattr(args, rest), *words_left])
        extras = options
    getattr(args, "parser", root).refuse_unknown(extras)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: words after ``perdure``; those of this process by default.

    Returns:
        0 for done, 1 for failed, 2 for a command that cannot be right, 130 for interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows another one; no run may end for that.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    args: argparse.Namespace | None = None
    try:
        args = read(parser(), words)
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        return _interrupted(args, words)
    except BrokenPipeError:
        return _reader_gone()
    except (PerdureError, OSError, MemoryError) as error:
        return _failed(error)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        return _failed(MemoryError("on the device"))


def _dispatch(args: argparse.Namespace) -> int:
    if args.version:
        import perdure

        print(f"perdure {perdure.__version__}")
        return 0
    handler = getattr(args, "handler", None)
    if handler is None:
        getattr(args, "parser", parser()).print_help(sys.stderr)
        return USAGE
    module, _, function = handler.partition(":")
    command: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"perdure.cli.{module}"), function
    )
    return command(args)


def _failed(error: BaseException) -> int:
    text = str(error)
    if isinstance(error, MemoryError):
        text = (
            f"Not enough memory {text}".rstrip() + ". Try a smaller batch_size=… and "
            "eval_batch_size=…, or a smaller img_size=…"
        )
    print(f"error: {text}", file=sys.stderr)
    return USAGE if isinstance(error, ConfigError) else FAILED


def _interrupted(args: argparse.Namespace | None, words: list[str]) -> int:
    again = getattr(args, "again", None)
    hint = ""
    if again is not None:
        more = [again] if again and again not in words else []
        hint = f" Go on with: {shlex.join(['perdure', *words, *more])}"
    print(f"\ninterrupted.{hint}", file=sys.stderr)
    return INTERRUPTED


def _reader_gone() -> int:
    """End quietly after ``perdure … | head``: the reader has what it wanted."""
    with contextlib.suppress(OSError, ValueError):
        # What is still buffered would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
