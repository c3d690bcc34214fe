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
            "perdure learn pets photos                 teach a model of your own, folder after folder",
            "perdure predict pets a.png                use what was learned",
            "perdure ls presets                        what there is to run",
        ),
    )
    root.add_argument("--version", action="store_true", help="print the version")
    verbs = root.add_subparsers(dest="command", metavar="command", title="commands")
    for add in (
        _run,
        _demo,
        _compare,
        _tune,
        _report,
        _learn,
        _predict,
        _eval,
        _save,
        _export,
        *LOOKING,
    ):
        add(verbs)
    return root


def _run(verbs: Any) -> None:
    run = add_command(
        verbs,
        "run",
        "learn a stream of tasks and leave results, picture and model in a folder",
        "commands.run:run",
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
        "commands.compare:demo",
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
        "commands.compare:compare",
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
        "commands.tune:search",
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
        "commands.report:report",
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


def _learn(verbs: Any) -> None:
    learn = add_command(
        verbs,
        "learn",
        "teach a model the classes of some photos; a new model, or one that knows others already",
        "commands.learn:learn",
        (
            "perdure learn pets photos/monday          a folder per class; pets is made",
            "perdure learn pets photos/tuesday         new classes, or more images of old ones",
            "perdure learn pets photos.csv             a table of path and label",
            "perdure learn pets photos --method nsp2 epochs=8",
            "",
            "The model changes whole or not at all: until the lesson is done and verified, the old one",
            "stays. `perdure show pets` tells what it has learned, `perdure show METHOD` the keys.",
        ),
        rest="overrides",
    )
    learn.add_argument("model", metavar="MODEL", help="folder of the model")
    learn.add_argument(
        "data", metavar="PHOTOS", help="a folder with a folder per class, a table, or hf:NAME"
    )
    learn.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="of a new model; or, as lr, of this lesson",
    )
    learn.add_argument("--method", metavar="NAME", help="of a new model; see `perdure ls methods`")
    learn.add_argument(
        "--backbone", metavar="NAME", help="of a new model; see `perdure ls backbones`"
    )
    learn.add_argument("--device", metavar="NAME", help="auto, cpu or cuda")
    learn.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be decoded, and name them",
    )
    learn.add_argument("-q", "--quiet", action="store_true", help="no progress")
    learn.set_defaults(again="")


def _eval(verbs: Any) -> None:
    evaluate = add_command(
        verbs,
        "eval",
        "count what a model gets right on labelled images: overall, per class and per task",
        "commands.learn:evaluate",
        (
            "perdure eval pets photos/test",
            "perdure eval pets test.csv --json",
            "perdure eval runs/digits/nsp2 photos --head linear",
        ),
    )
    evaluate.add_argument("model", metavar="MODEL", help="folder of a model, or of a finished run")
    evaluate.add_argument(
        "data", metavar="DATA", help="a folder with a folder per class, a table, or hf:NAME"
    )
    evaluate.add_argument(
        "--head", metavar="NAME", help="default: the last one of the model's heads"
    )


def _predict(verbs: Any) -> None:
    predict = add_command(
        verbs,
        "predict",
        "name the classes of images with what a run has learned",
        "commands.predict:predict",
        (
            "perdure predict runs/digits/nsp2 a.png b.png",
            "perdure predict runs/digits/nsp2 photos --format csv > photos.csv",
            "find photos -mtime -1 | perdure predict runs/digits/nsp2 - --json",
            "",
            "Folders are gone through with all folders in them. An image that cannot be read gets a",
            "row with the reason; the exit code is 1 then.",
        ),
        rest="paths",
    )
    predict.add_argument("model", metavar="MODEL", help="folder of a finished run, or its model")
    predict.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="image files, folders of them, or - for a path per line on standard input",
    )
    predict.add_argument(
        "--top", metavar="K", type=positive, default=5, help="classes per image; default: 5"
    )
    predict.add_argument(
        "--format",
        metavar="FORMAT",
        choices=("table", "csv", "json"),
        help="table, csv or json; default: table (--json: json)",
    )
    predict.add_argument("--head", metavar="NAME", help="default: the last one of the run's heads")
    predict.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        help="images that go through the backbone together; default: the model's eval_batch_size",
    )


def _save(verbs: Any) -> None:
    save = add_command(
        verbs,
        "save",
        "copy a model to a folder of its own, or without what only learning on needs",
        "commands.save:save",
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


def _export(verbs: Any) -> None:
    export = add_command(
        verbs,
        "export",
        "write what a run has learned as one ONNX file, checked against the model",
        "commands.export:export",
        (
            "perdure export runs/digits/nsp2 digits.onnx",
            "perdure export runs/digits/nsp2 digits.onnx --head linear --images photos",
            "",
            "Prompts are folded in: the file needs ONNX Runtime alone. It is written when it",
            "gives the model's own answers; a file of that name is replaced.",
        ),
    )
    export.add_argument("model", metavar="MODEL", help="folder of a finished run, or its model")
    export.add_argument("out", metavar="OUT.onnx", help="the file")
    export.add_argument("--head", metavar="NAME", help="default: the last one of the run's heads")
    export.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        default=[],
        help="check the file with these image files or folders too",
    )
