"""The words of the command line and their help; nothing heavy is imported for either."""

from __future__ import annotations

from typing import Any

from perdure.cli.looking import LOOKING
from perdure.cli.parsing import Parser, add_command, examples, positive


def parser() -> Parser:
    """Build the parser of the whole command line; imports nothing heavy."""
    root = Parser(
        prog="perdure",
        description="Teach a frozen vision transformer new classes, task after task, without "
        "storing old images.",
        epilog=examples(
            "perdure demo                              learn the digits two at a time, and compare",
            "perdure run digits/nsp2                   one method on one stream",
            "perdure run digits/nsp2 --dry-run         check everything, show the plan",
            "perdure predict runs/digits/nsp2 a.png    use what was learned",
            "perdure ls presets                        what there is to run",
        ),
    )
    root.add_argument("--version", action="store_true", help="print the version")
    verbs = root.add_subparsers(dest="command", metavar="command", title="commands")
    for add in (_run, _demo, _compare, _tune, _report, _predict, _save, *LOOKING):
        add(verbs)
    return root


def _run(verbs: Any) -> None:
    run = add_command(
        verbs,
        "run",
        "learn a stream of tasks and leave results, picture and model in a folder",
        "run:run",
        (
            "perdure run digits/nsp2",
            "perdure run digits/nsp2 epochs=2 heads=gaussian --out runs/short",
            "perdure run digits/nsp2 --seeds 0,1,2",
            "perdure run digits/nsp2 --resume          go on after an interruption",
            "perdure run digits/l2p --diagnose         does the choice of prompts know the task?",
            "perdure run my.toml --dry-run             check everything, compute nothing",
            "perdure run digits/nsp2 data=photos tasks=B0-Inc5   your own images",
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
    run.add_argument(
        "--diagnose",
        action="store_true",
        help="tell what the choice of prompts knows of the task; for methods that select",
    )
    run.add_argument("--dry-run", action="store_true", help="check everything and show the plan")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress")
    run.set_defaults(again="--resume")


def _demo(verbs: Any) -> None:
    demo = add_command(
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
    compare = add_command(
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


def _tune(verbs: Any) -> None:
    tune = add_command(
        verbs,
        "tune",
        "choose hyperparameters on validation images, and write the best as a preset",
        "tune:search",
        (
            "perdure tune digits/nsp2 --budget 8",
            "perdure tune digits/nsp2 --space lr=0.003,0.01 temperature=5,28 --seeds 0,1",
            "perdure tune digits/l2p img_size=64 --head gaussian",
            "",
            "The same command goes on after an interruption; a larger budget adds trials.",
        ),
        rest="overrides",
    )
    tune.add_argument("what", metavar="PRESET|FILE.toml", help="a preset, or a file of your own")
    tune.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="in place of the preset's"
    )
    tune.add_argument(
        "--budget", metavar="N", type=positive, default=8, help="settings to try; default: 8"
    )
    tune.add_argument(
        "--space",
        metavar="key=value,…",
        nargs="+",
        help="values to choose from; default: a small space that suits the method",
    )
    tune.add_argument("--seeds", metavar="0,1,2", help="run every setting once per seed")
    tune.add_argument("--head", metavar="NAME", help="whose accuracy counts; default: the first")
    tune.add_argument("--out", metavar="DIR", help="default: runs/tune/PRESET")
    tune.add_argument("-q", "--quiet", action="store_true", help="no progress")
    tune.set_defaults(again="")


def _report(verbs: Any) -> None:
    report = add_command(
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
    predict = add_command(
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


def _save(verbs: Any) -> None:
    save = add_command(
        verbs,
        "save",
        "copy a model to a folder of its own, or without what only learning on needs",
        "saving:save",
        (
            "perdure save runs/digits/nsp2 model",
            "perdure save runs/digits/nsp2 small --inference-only",
        ),
    )
    save.add_argument("model", metavar="MODEL", help="folder of a finished run, or its model")
    save.add_argument("out", metavar="DIR", help="where to; a model found there is replaced")
    save.add_argument(
        "--inference-only",
        action="store_true",
        help="leave out what only learning on reads; its predictions are the same",
    )
