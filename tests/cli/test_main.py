"""The command line itself: help, exit codes, what it imports, how it ends."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

import perdure as package
from perdure.cli.commands import ls
from perdure.cli.main import main, parser
from perdure.errors import PerdureError
from tests.cli.command import Perdure

SOURCE = Path(__file__).parents[2] / "src"
COMMANDS = (
    "run",
    "demo",
    "compare",
    "report",
    "predict",
    "data",
    "data ls",
    "data fetch",
    "data check",
    "ls",
    "show",
    "doctor",
    "bench",
    "bench step",
    "bench cost",
    "history",
    "undo",
    "rename",
    "merge",
    "forget",
    "serve",
)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with perdure importable."""
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_are_all_tested() -> None:
    listed = parser().format_help()
    assert all(f"\n    {name.split()[0]} " in listed for name in COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_with_examples(perdure: Perdure, command: str) -> None:
    said = perdure(*command.split(), "--help")
    assert (said.code, said.err) == (0, "")
    assert f"\n  perdure {command}" in said.out.partition("\nexamples:")[2]


@pytest.mark.parametrize("command", ["", "run", "bench step"])
def test_help_imports_no_torch_and_is_quick(command: str) -> None:
    used = os.times()
    done = python("-X", "importtime", "-m", "perdure.cli", *command.split(), "--help")
    now = os.times()
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "timm", "numpy", "matplotlib", "rich", "pydantic"}
    # Of the processor, not of the clock: this machine may be busy.
    assert now.children_user - used.children_user < 1


def test_importing_perdure_imports_no_torch() -> None:
    code = "import sys, perdure; print('torch' in sys.modules, perdure.__version__, dir(perdure))"
    done = python("-c", code)
    assert done.stdout.startswith("False ")
    assert "'ContinualClassifier'" in done.stdout


def test_public_names_are_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        package.runn  # noqa: B018


def test_exit_codes_of_the_real_command() -> None:
    typo = python("-m", "perdure.cli", "rnu")
    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr.startswith("error: Unknown command 'rnu'. Did you mean 'run'?")
    assert python("-m", "perdure.cli", "--version").stdout.startswith("perdure ")


def test_no_command_shows_the_help(perdure: Perdure) -> None:
    for words in ([], ["bench"], ["data"]):
        said = perdure(*words)
        assert (said.code, said.out) == (2, "")
        assert "examples:" in said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["run"],
            "error: The following arguments are required: PRESET|FILE.toml. Try `perdure run",
        ),
        (["run", "digits/nsp2", "--resum"], "Unknown argument '--resum'. Did you mean '--resume'?"),
        (
            ["run", "digits/nsp2", "--out"],
            "Argument --out: expected one argument. Try `perdure run",
        ),
        (["doctor", "now"], "Unknown argument 'now'. Try `perdure doctor --help`."),
        (["bench", "stop"], "Unknown measure 'stop'. Did you mean 'step'?"),
        (["bench", "step", "--pairs", "0"], "'0' is not a whole number of 1 or more"),
        (["bench", "step", "--img-size", "big"], "'big' is not a whole number of 1 or more"),
    ],
)
def test_wrong_usage(perdure: Perdure, words: list[str], expected: str) -> None:
    said = perdure(*words)
    assert (said.code, said.out) == (2, "")
    assert expected in said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err


def raising(error: BaseException) -> object:
    def handler(args: object) -> NoReturn:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PerdureError("no such thing. Type that."), 1, "error: no such thing. Type that.\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (MemoryError(), 1, "error: Not enough memory. Try a smaller batch_size=…"),
        (KeyboardInterrupt(), 130, "\ninterrupted.\n"),
    ],
)
def test_ends(
    perdure: Perdure,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(ls, "ls", raising(error))
    said = perdure("ls", "presets")
    assert said.code == code
    assert said.err.startswith(text)


def test_full_device_memory_is_no_traceback(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch raises it."""

    monkeypatch.setattr(ls, "ls", raising(OutOfMemoryError("CUDA out of memory")))
    assert perdure("ls", "presets").err.startswith("error: Not enough memory on the device.")


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ls, "ls", raising(RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        main(["ls", "presets"])


class GonePipe(io.StringIO):
    """The standard output of ``perdure … | head`` after head has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("words", [["ls", "presets"], ["ls", "presets", "--json"], ["--version"]])
def test_a_reader_that_left_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", GonePipe())
        code = main(words)
    assert (code, capsys.readouterr().err) == (0, "")


def test_a_terminal_without_unicode_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as terminal:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", terminal)
            assert main(["show", "nsp2"]) == 0
        assert b"(??)" in raw.getvalue()


@pytest.mark.parametrize(
    ("sink", "code"), [(">&-", 0), ("> /dev/full", 1)], ids=["closed", "full disk"]
)
def test_an_output_that_takes_nothing(sink: str, code: int) -> None:
    """Not 120, as Python ends where it cannot write what is left."""
    command = f"{shlex.quote(sys.executable)} -m perdure.cli ls transforms {sink}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == code
    assert "Traceback" not in made.stderr
    assert "Exception ignored" not in made.stderr
