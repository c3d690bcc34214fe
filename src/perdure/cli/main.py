"""Entry point of ``perdure``: parse, import extensions, run the command, map errors to exit codes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from perdure.cli import commands
from perdure.cli.parsing import Parser, add_import, examples
from perdure.engine.launch import rank_here
from perdure.errors import ConfigError, PerdureError, RankError
from perdure.extensions import load
from perdure.wording import printable

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def parser() -> Parser:
    """Build the parser of the whole command line; nothing heavy is imported for it."""
    root = Parser(
        prog="perdure",
        description="Teach a frozen vision transformer new classes, task after task, without "
        "storing old images.",
        epilog=examples(
            "perdure demo                              learn the digits two at a time, and compare",
            "perdure run digits/nsp2                   one method on one stream",
            "perdure run digits/nsp2 --dry-run         check everything, show the plan",
            "perdure learn pets photos                 teach a model of your own, folder after folder",
            "perdure predict pets a.png                use what was learned",
            "perdure ls presets                        what there is to run",
        ),
    )
    root.add_argument("--version", action="store_true", help="print the version")
    add_import(root, "imports")
    verbs = root.add_subparsers(dest="command", metavar="command", title="commands")
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(module.name).add(verbs)
    return root


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
    # torch reads it at its first allocation: large tensors lie in large pages where Linux has them.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:  # it was closed by whoever started the command
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  to the end
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
        code = _failed(error)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk, say
            _reader_gone()
        return code
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
    args.imports = [*args.imports, *args.more_imports]
    load(args.imports)
    code: int = handler(args)
    return code


def _failed(error: BaseException) -> int:
    text = str(error)
    if isinstance(error, MemoryError):
        text = (
            f"Not enough memory {text}".rstrip() + ". Try a smaller batch_size=… and "
            "eval_batch_size=…, or a smaller img_size=…"
        )
    rank = rank_here()
    where = f"rank {rank}: " if rank and not isinstance(error, RankError) else ""
    print(f"error: {where}{printable(text, lines=True)}", file=sys.stderr)
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
