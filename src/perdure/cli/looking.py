"""The words of the commands that look and measure: data, what there is, this machine, speed."""

from __future__ import annotations

from typing import Any

from perdure.cli.parsing import (
    Parser,
    add_command,
    add_group,
    counts,
    names,
    positive,
    positives,
)

KINDS = ("backbones", "heads", "methods", "presets", "streams", "transforms")
"""What ``perdure ls`` lists."""

TIMED = "vit_base_patch16_224.augreg_in21k"
"""The architecture that benchmarks time."""


def _data(verbs: Any) -> None:
    group = add_group(
        verbs,
        "data",
        "list, fetch and check published data sets, and check images of your own",
        ("perdure data ls", "perdure data fetch imagenet_r", "perdure data check photos"),
    )
    data = group.add_subparsers(dest="verb", metavar="verb", title="verbs")
    add_command(
        data,
        "ls",
        "list published data sets: how large they are, where they come from, whether at hand",
        "commands.data:ls",
        ("perdure data ls", "perdure data ls --json"),
    )
    fetch = add_command(
        data,
        "fetch",
        "download, check and unpack a published data set, or unpack what was put there by hand",
        "commands.data:fetch",
        (
            "perdure data fetch cifar100",
            "",
            "An interrupted download goes on where it stopped. Without network: the error names",
            "the files, where to put them, and what to type then.",
        ),
    )
    fetch.add_argument("name", metavar="NAME", help="see `perdure data ls`")
    fetch.set_defaults(again="")
    check = add_command(
        data,
        "check",
        "look for unreadable images, duplicates across train and test, and classes that are too small",
        "commands.data:check",
        (
            "perdure data check photos                    a folder per class",
            "perdure data check photos.csv                a table of path and label",
            "perdure data check cub200 --min-images 20",
            "perdure data check photos --json",
            "",
            "The exit code is 1 where there are faults.",
        ),
    )
    check.add_argument(
        "name", metavar="NAME|PATH", help="a published data set, or a folder or table of yours"
    )
    check.add_argument(
        "--min-images",
        metavar="K",
        type=positive,
        default=2,
        help="readable images that a class must have; default: %(default)s",
    )


def _ls(verbs: Any) -> None:
    ls = add_command(
        verbs,
        "ls",
        f"list {', '.join(KINDS[:-1])} or {KINDS[-1]}",
        "commands.show:ls",
        (
            "perdure ls presets                 what there is per benchmark",
            "perdure ls presets cifar100        a line for each of a benchmark's",
            "perdure ls presets /iprompt        and of a method's",
            "perdure ls methods --json",
        ),
    )
    ls.add_argument("kind", metavar="kind", choices=KINDS, help=", ".join(KINDS))
    ls.add_argument(
        "within", metavar="TEXT", nargs="?", help="only those with this text in their name"
    )


def _show(verbs: Any) -> None:
    show = add_command(
        verbs,
        "show",
        "explain a preset, method, head, stream, transform, backbone or saved model, or draw a stream",
        "commands.show:show",
        (
            "perdure show nsp2                  a method with its options",
            "perdure show cifar100-10s/nsp2     a preset: every value, and what was published",
            "perdure show run                   the keys of every run",
            "perdure show clip_vit_base_patch16",
            "perdure show pets                 a saved model, or the one that a run has left",
            "perdure show digits --plot tasks=B4-Inc2 imbalance=50   what every task brings, drawn",
            "perdure show photos.csv --plot increment=domains --out photos.png",
        ),
        rest="overrides",
    )
    show.add_argument(
        "name",
        metavar="NAME|MODEL",
        help="see `perdure ls`, or a model's folder; to plot, images of yours too",
    )
    show.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="of the stream to plot"
    )
    show.add_argument(
        "--plot", action="store_true", help="draw how many images of which classes every task has"
    )
    show.add_argument("--out", metavar="FILE.png", help="of the plot; default: NAME.png")


def _doctor(verbs: Any) -> None:
    add_command(
        verbs,
        "doctor",
        "tell what works on this machine, and what to do about what does not",
        "commands.doctor:doctor",
        ("perdure doctor", "perdure doctor --json"),
    )


def _bench(verbs: Any) -> None:
    bench = add_group(
        verbs,
        "bench",
        "measure speed and cost",
        (
            "perdure bench step --method nsp2 --batch-size 8",
            "perdure bench data --data photos",
            "perdure bench cost",
        ),
    )
    measures = bench.add_subparsers(dest="measure", metavar="measure", title="measures")
    _bench_step(measures)
    _bench_data(measures)
    _bench_cost(measures)
    _bench_predict(measures)


def _bench_step(measures: Any) -> None:
    step = add_command(
        measures,
        "step",
        "measure a training step against the least it can cost on this machine",
        "commands.bench:step",
        (
            "perdure bench step --method nsp2 --batch-size 8 --json",
            "perdure bench step --precision fp32",
            "perdure bench step --backbone test_vit --img-size 64 --pairs 2   in a second",
        ),
    )
    _one_step(step)
    _timing(step)


def _bench_data(measures: Any) -> None:
    data = add_command(
        measures,
        "data",
        "measure how fast images are read and augmented, beside what a training step takes",
        "commands.bench:data",
        (
            "perdure bench data                                drawn JPEG files, read every time",
            "perdure bench data --data photos --transform plain",
            "perdure bench data --workers 0,4,8 --batch-size 128 --images 8192   on a GPU",
            "perdure bench data --data digits --backbone test_vit --img-size 32  in seconds",
        ),
    )
    data.add_argument(
        "--data",
        metavar="PATH|NAME",
        help="a folder with a folder per class, a table, hf:NAME or a stream; default: drawn files",
    )
    data.add_argument("--transform", metavar="NAME", default="nsp2", help="default: %(default)s")
    data.add_argument(
        "--workers",
        metavar="N,…",
        type=counts,
        default=(0, 1, 2),
        help="numbers of processes that read; default: 0,1,2",
    )
    data.add_argument(
        "--images", metavar="N", type=positive, default=128, help="read per pass; default: 128"
    )
    _one_step(data)
    _size(data)


def _one_step(parser: Parser) -> None:
    """Options of what measures the step of one method."""
    parser.add_argument("--method", metavar="NAME", default="nsp2", help="default: %(default)s")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=8, help="default: 8")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        default=TIMED,
        help="default: %(default)s, with random weights",
    )


def _bench_cost(measures: Any) -> None:
    cost = add_command(
        measures,
        "cost",
        "measure what every method that trains prompts costs: operations, time, memory, state",
        "commands.bench:cost",
        (
            "perdure bench cost",
            "perdure bench cost --methods iprompt,l2p --batch-sizes 1,8",
            "perdure bench cost --backbones test_vit --img-size 64 --pairs 2   in a minute",
        ),
    )
    cost.add_argument(
        "--methods",
        metavar="NAME,…",
        type=names,
        default=(),
        help="default: all that train prompts",
    )
    cost.add_argument(
        "--backbones",
        metavar="NAME,…",
        type=names,
        default=(TIMED,),
        help=f"default: {TIMED}; random weights",
    )
    cost.add_argument(
        "--batch-sizes", metavar="N,…", type=positives, default=(8,), help="default: 8"
    )
    cost.add_argument(
        "--out", metavar="DIR", default="runs/cost", help="table and picture; default: %(default)s"
    )
    _timing(cost)


def _bench_predict(measures: Any) -> None:
    predict = add_command(
        measures,
        "predict",
        "measure `perdure predict` on drawn JPEG files against the backbone's bare forward",
        "commands.bench:predict",
        (
            "perdure bench predict runs/digits/nsp2",
            "perdure bench predict --method iprompt --images 128 --batch-size 16",
            "perdure bench predict --backbone test_vit --img-size 64 --rounds 2   in a second",
        ),
    )
    predict.add_argument(
        "model", metavar="MODEL", nargs="?", help="a run's folder; default: one with random weights"
    )
    predict.add_argument("--method", metavar="NAME", help="without MODEL; default: nsp2")
    predict.add_argument("--backbone", metavar="NAME", help=f"without MODEL; default: {TIMED}")
    predict.add_argument("--img-size", metavar="PX", type=positive, help="without MODEL")
    predict.add_argument("--precision", metavar="TYPE", help="without MODEL: auto, fp32 or bf16")
    predict.add_argument(
        "--images", metavar="N", type=positive, default=64, help="JPEG files; default: 64"
    )
    predict.add_argument(
        "--batch-size", metavar="N", type=positive, help="default: the model's eval_batch_size"
    )
    predict.add_argument(
        "--rounds", metavar="N", type=positive, default=5, help="interleaved runs; default: 5"
    )


def _timing(parser: Parser) -> None:
    """Options of everything that is timed in pairs."""
    _size(parser)
    parser.add_argument(
        "--pairs", metavar="N", type=positive, default=5, help="interleaved runs; default: 5"
    )


def _size(parser: Parser) -> None:
    """Options of everything that computes."""
    parser.add_argument(
        "--precision", metavar="TYPE", default="auto", help="auto, fp32 or bf16; default: auto"
    )
    parser.add_argument("--img-size", metavar="PX", type=positive, default=224, help="default: 224")


LOOKING = (_data, _ls, _show, _doctor, _bench)
"""What adds each of them."""
