"""Extensions: modules outside the package that register methods, heads or sources of images."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from perdure.errors import ConfigError, did_you_mean

GROUP = "perdure.extensions"
"""Entry-point group of installed packages; each of its entries names a module to import."""


def load(modules: Iterable[str] = ()) -> None:
    """Import the extensions of installed packages, then these modules.

    Modules of the working directory can be named, as with ``python -m``. A module that is imported
    already is left as it is.

    Args:
        modules: names as Python imports them, such as ``my_methods`` or ``lab.methods``.

    Raises:
        ConfigError: a module that does not exist or fails, such as by registering a name twice.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  --help must not wait for it

    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else entry.name
        _import(entry.module, f"Extension '{entry.module}' of the installed package '{package}'")
    modules = list(modules)
    if modules and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        _check_name(module)
        _import(module, f"Module '{module}'")


def _check_name(module: str) -> None:
    """Refuse a path in place of a module name, and a module that cannot be found.

    Raises:
        ConfigError: it is one of these.
    """
    if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
        named = ".".join(Path(module.removesuffix(".py")).parts).strip("./")
        example = named if named.replace(".", "_").isidentifier() else "my_methods"
        raise ConfigError(
            f"'{module}' is no name of a module. Give it as Python imports it, as {example}."
        )
    top = module.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        near = did_you_mean(top, [path.stem for path in Path.cwd().glob("*.py")])
        raise ConfigError(
            f"There is no module '{module}' in {Path.cwd()} or where Python looks for modules."
            f"{near} Go to its folder, or add the folder to PYTHONPATH."
        )


def _import(module: str, subject: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a module of somebody else's can raise anything
        raise ConfigError(
            f"{subject} cannot be imported: {type(error).__name__}: {error}{_line_of(error)}"
        ) from error


def _line_of(error: Exception) -> str:
    """Return the last line that ran of the module, or of a file beside it."""
    skipped = (__file__, importlib.__file__, "<frozen importlib")
    import traceback  # noqa: PLC0415

    stack = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in stack if not frame.filename.startswith(skipped)]
    folder = Path(frames[0].filename).parent if frames else None
    last = [frame for frame in frames if Path(frame.filename).parent == folder][-1:]
    return "".join(f" ({frame.filename}, line {frame.lineno})" for frame in last)
