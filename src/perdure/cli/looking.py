"""The words of the commands that look and measure: data, what there is, this machine, speed."""

from __future__ import annotations

from typing import Any

from perdure.cli.parsing import Parser, add_command, add_group, names, positive, positives

KINDS = ("backbones", "heads", "methods", "presets", "streams", "transforms")
"""What ``perdure ls`` lists."""

_TIMED = "vit_base_patch16_224.augreg_in21k"
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
        "data:ls",
        ("perdure data ls", "perdure data ls --json"),
    )
    fetch = add_command(
        data,
        "fetch",
        "download, check and unpack a published data set, or unpack what was put there by hand",
        "data:fetch",
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
        "data:check",
        (
            "perdure data check photos                    a folder per class",
            "perdure data check cub200 --min-images 20",
            "perdure data check photos --json",
            "",
            "The exit code is 1 where there are faults.",
        ),
    )
    check.add_argument("name", metavar="NAME|DIR", help="a published data set, or a folder")
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
        "catalogue:ls",
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
        "explain a preset, method, head, stream, transform or backbone",
        "catalogue:show",
        (
            "perdure show nsp2                  a method with its options",
            "perdure show cifar100-10s/nsp2     a preset: every value, and what was published",
            "perdure show run                   the keys of every run",
            "perdure show clip_vit_base_patch16",
        ),
    )
    show.add_argument("name", metavar="NAME", help="see `perdure ls`")


def _doctor(verbs: Any) -> None:
    add_command(
        verbs,
        "doctor",
        "tell what works on this machine, and what to do about what does not",
        "doctor:doctor",
        ("perdure doctor", "perdure doctor --json"),
    )


def _bench(verbs: Any) -> None:
    bench = add_group(
        verbs,
        "bench",
        "measure speed and cost",
        ("perdure bench step --method nsp2 --batch-size 8", "perdure bench cost"),
    )
    measures = bench.add_subparsers(dest="measure", metavar="measure", title="measures")
    _bench_step(measures)
    _bench_cost(measures)


def _bench_step(measures: Any) -> None:
    step = add_command(
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
    step.add_argument("--batch-size", metavar="N", type=positive, default=8, help="default: 8")
    step.add_argument(
        "--backbone",
        metavar="NAME",
        default=_TIMED,
        help="default: %(default)s, with random weights",
    )
    _timing(step)


def _bench_cost(measures: Any) -> None:
    cost = add_command(
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
        type=names,
        default=(),
        help="default: all that train prompts",
    )
    cost.add_argument(
        "--backbones",
        metavar="NAME,…",
        type=names,
        default=(_TIMED,),
        help=f"default: {_TIMED}; random weights",
    )
    cost.add_argument(
        "--batch-sizes", metavar="N,…", type=positives, default=(8,), help="default: 8"
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
    parser.add_argument("--img-size", metavar="PX", type=positive, default=224, help="default: 224")
    parser.add_argument(
        "--pairs", metavar="N", type=positive, default=5, help="interleaved runs; default: 5"
    )


LOOKING = (_data, _ls, _show, _doctor, _bench)
"""What adds each of them."""
