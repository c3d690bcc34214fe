"""The words of the command line and their help; nothing heavy is imported for either."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from perdure.errors import ConfigError, did_you_mean, unknown_name

KINDS = ("backbones", "heads", "methods", "presets", "streams", "transforms")
"""What ``perdure ls`` lists."""


class UsageError(ConfigError):
    """A command line that cannot be read."""


_TIMED = "vit_base_patch16_224.augreg_in21k"
"""The architecture that benchmarks time."""


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


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def parser() -> Parser:
    """Build the parser of the whole command line; imports nothing heavy."""
    root = Parser(
        prog="perdure",
        description="Teach a frozen vision transformer new classes, task after task, without "
        "storing old images.",
        epilog=_examples(
            "perdure demo                              learn the digits two at a time, and compare",
            "perdure run digits/nsp2                   one method on one stream",
            "perdure run digits/nsp2 --dry-run         check everything, show the plan",
            "perdure predict runs/digits/nsp2 a.png    use what was learned",
            "perdure ls presets                        what there is to run",
        ),
    )
    root.add_argument("--version", action="store_true", help="print the version")
    verbs = root.add_subparsers(dest="command", metavar="command", title="commands")
    for add in (_run, _demo, _compare, _report, _predict, _ls, _show, _doctor, _bench):
        add(verbs)
    return root


def _command(
    verbs: Any, name: str, does: str, handler: str, examples: Sequence[str], rest: str = ""
) -> Parser:
    """Add a command.

    Args:
        verbs: where to.
        name: what is typed.
        does: one line.
        handler: ``module:function``, imported when the command is given.
        examples: ends the help.
        rest: the list that takes words which stand after an option.
    """
    made: Parser = verbs.add_parser(
        name, help=does, description=does[0].upper() + does[1:] + ".", epilog=_examples(*examples)
    )
    made.set_defaults(handler=handler, parser=made, rest=rest, again=None)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def _run(verbs: Any) -> None:
    run = _command(
        verbs,
        "run",
        "learn a stream of tasks and leave results, picture and model in a folder",
        "run:run",
        (
            "perdure run digits/nsp2",
            "perdure run digits/nsp2 epochs=2 heads=gaussian --out runs/short",
            "perdure run digits/nsp2 --seeds 0,1,2",
            "perdure run digits/nsp2 --resume          go on after an interruption",
            "perdure run my.toml --dry-run             check everything, compute nothing",
            "perdure run digits/nsp2 stream=folder path=photos tasks=B0-Inc5",
            "",
            "`perdure ls presets` lists the presets, `perdure show run` the keys of a run,",
            "`perdure show METHOD` those of a method.",
        ),
        rest="overrides",
    )
    run.add_argument("what", metavar="PRESET|FILE.toml", help="a preset, or a file of your own")
    run.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="in place of the preset's"
    )
    run.add_argument("--out", metavar="DIR", help="folder of the results; default: runs/PRESET")
    run.add_argument("--seeds", metavar="0,1,2", help="run once per seed and show mean and spread")
    run.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, or start it"
    )
    run.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be decoded, count and list them",
    )
    run.add_argument("--dry-run", action="store_true", help="check everything and show the plan")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress")
    run.set_defaults(again="--resume")


def _demo(verbs: Any) -> None:
    demo = _command(
        verbs,
        "demo",
        "learn the digits two at a time with four methods and compare them",
        "compare:demo",
        (
            "perdure demo",
            "perdure demo --out /tmp/demo",
            "perdure demo backbone=test_vit weights=random img_size=32   in seconds, and worse",
            "",
            "An interrupted demo goes on where it stopped; finished runs are used again.",
        ),
        rest="overrides",
    )
    demo.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="for all four runs"
    )
    demo.add_argument("--out", metavar="DIR", default="runs/demo", help="default: %(default)s")
    demo.add_argument("-q", "--quiet", action="store_true", help="no progress")
    demo.set_defaults(again="")


def _compare(verbs: Any) -> None:
    compare = _command(
        verbs,
        "compare",
        "print one table and draw one picture of several runs",
        "compare:compare",
        (
            "perdure compare runs/digits/nsp2 runs/digits/finetune",
            "perdure compare runs/digits --out runs/digits/all    every run in a folder",
            "perdure compare runs/demo --json",
        ),
        rest="folders",
    )
    compare.add_argument(
        "folders", metavar="DIR", nargs="+", help="a run's folder, or a folder of such folders"
    )
    compare.add_argument(
        "--out",
        metavar="DIR",
        default="runs/comparison",
        help="where comparison.png, .md and .json go; default: %(default)s",
    )


def _report(verbs: Any) -> None:
    report = _command(
        verbs,
        "report",
        "write one page with tables and figures of several runs",
        "report:report",
        (
            "perdure report runs/digits/nsp2 runs/digits/finetune",
            "perdure report runs/digits --out digits.html         every run in a folder",
            "perdure report runs/digits --against paper           published numbers beside ours",
            "",
            "The page needs nothing else; its tables and figures lie beside it as files too.",
        ),
        rest="folders",
    )
    report.add_argument(
        "folders", metavar="DIR", nargs="+", help="a run's folder, or a folder of such folders"
    )
    report.add_argument(
        "--out", metavar="FILE.html", default="report.html", help="default: %(default)s"
    )
    report.add_argument(
        "--against",
        metavar="paper",
        choices=("paper",),
        help="add published numbers, and say which of them compare",
    )


def _predict(verbs: Any) -> None:
    predict = _command(
        verbs,
        "predict",
        "name the class of images with what a run has learned",
        "predict:predict",
        (
            "perdure predict runs/digits/nsp2 a.png b.png",
            "perdure predict runs/digits/nsp2 photos --head linear --json",
        ),
        rest="images",
    )
    predict.add_argument("model", metavar="MODEL", help="folder of a finished run, or its model")
    predict.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, or folders of images"
    )
    predict.add_argument("--head", metavar="NAME", help="default: the last one of the run's heads")


def _ls(verbs: Any) -> None:
    ls = _command(
        verbs,
        "ls",
        f"list {', '.join(KINDS[:-1])} or {KINDS[-1]}",
        "catalogue:ls",
        ("perdure ls presets", "perdure ls backbones", "perdure ls methods --json"),
    )
    ls.add_argument("kind", metavar="kind", choices=KINDS, help=", ".join(KINDS))


def _show(verbs: Any) -> None:
    show = _command(
        verbs,
        "show",
        "explain a preset, method, head, stream, transform or backbone",
        "catalogue:show",
        (
            "perdure show nsp2                  a method with its options",
            "perdure show digits/nsp2           a preset with every value",
            "perdure show run                   the keys of every run",
            "perdure show clip_vit_base_patch16",
        ),
    )
    show.add_argument("name", metavar="NAME", help="see `perdure ls`")


def _doctor(verbs: Any) -> None:
    _command(
        verbs,
        "doctor",
        "tell what works on this machine, and what to do about what does not",
        "doctor:doctor",
        ("perdure doctor", "perdure doctor --json"),
    )


def _bench(verbs: Any) -> None:
    bench: Parser = verbs.add_parser(
        "bench",
        help="measure speed and cost",
        description="Measure speed and cost.",
        epilog=_examples("perdure bench step --method nsp2 --batch-size 8", "perdure bench cost"),
    )
    bench.set_defaults(handler=None, parser=bench, rest="", again=None)
    measures = bench.add_subparsers(dest="measure", metavar="measure", title="measures")
    _bench_step(measures)
    _bench_cost(measures)


def _bench_step(measures: Any) -> None:
    step = _command(
        measures,
        "step",
        "measure a training step against the least it can cost on this machine",
        "bench:step",
        (
            "perdure bench step --method nsp2 --batch-size 8 --json",
            "perdure bench step --precision fp32",
            "perdure bench step --backbone test_vit --img-size 64 --pairs 2   in a second",
        ),
    )
    step.add_argument("--method", metavar="NAME", default="nsp2", help="default: %(default)s")
    step.add_argument("--batch-size", metavar="N", type=_positive, default=8, help="default: 8")
    step.add_argument(
        "--backbone",
        metavar="NAME",
        default=_TIMED,
        help="default: %(default)s, with random weights",
    )
    _timing(step)


def _bench_cost(measures: Any) -> None:
    cost = _command(
        measures,
        "cost",
        "measure what every method that trains prompts costs: operations, time, memory, state",
        "bench:cost",
        (
            "perdure bench cost",
            "perdure bench cost --methods iprompt,l2p --batch-sizes 1,8",
            "perdure bench cost --backbones test_vit --img-size 64 --pairs 2   in a minute",
        ),
    )
    cost.add_argument(
        "--methods",
        metavar="NAME,…",
        type=_names,
        default=(),
        help="default: all that train prompts",
    )
    cost.add_argument(
        "--backbones",
        metavar="NAME,…",
        type=_names,
        default=(_TIMED,),
        help=f"default: {_TIMED}; random weights",
    )
    cost.add_argument(
        "--batch-sizes", metavar="N,…", type=_positives, default=(8,), help="default: 8"
    )
    cost.add_argument(
        "--out", metavar="DIR", default="runs/cost", help="table and picture; default: %(default)s"
    )
    _timing(cost)


def _timing(parser: Parser) -> None:
    """Options of everything that is timed."""
    parser.add_argument(
        "--precision", metavar="TYPE", default="auto", help="auto, fp32 or bf16; default: auto"
    )
    parser.add_argument(
        "--img-size", metavar="PX", type=_positive, default=224, help="default: 224"
    )
    parser.add_argument(
        "--pairs", metavar="N", type=_positive, default=5, help="interleaved runs; default: 5"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return value
