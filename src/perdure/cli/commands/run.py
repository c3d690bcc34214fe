"""``perdure run``: one configuration, or the same with several seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import add_jobs, add_preset, add_quiet, add_seeds, check_jobs, read_seeds
from perdure.cli.output import messages, print_json, print_rich
from perdure.cli.parsing import UsageError, add_command
from perdure.errors import JobError
from perdure.wording import counted, printable

if TYPE_CHECKING:
    from perdure.engine.config import Config
    from perdure.experiment import Finished


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "run", run, rest="overrides", again="--resume")
    add_preset(command)
    command.option("--out", "DIR", "folder of the results; default: runs/PRESET")
    add_seeds(command, "run once per seed and show mean and spread")
    command.flag("--resume", "go on with the run in the folder, or start it")
    command.flag(
        "--skip-unreadable", "leave out images that cannot be decoded, count and list them"
    )
    command.flag(
        "--diagnose",
        "tell what the choice of prompts knows of the task, and what stale statistics cost",
    )
    command.flag("--dry-run", "check everything and show the plan")
    add_jobs(command, "run on Ray, each run in a process of its own, and take several presets")
    add_quiet(command)


def run(args: argparse.Namespace) -> int:
    """Learn a stream of tasks and leave results, picture and model in a folder.

    Examples:
        perdure run digits/nsp2
        perdure run digits/nsp2 epochs=2 heads=gaussian --out runs/short
        perdure run digits/nsp2 --seeds 0,1,2
        perdure run digits/nsp2 --resume          go on after an interruption
        perdure run digits/l2p --diagnose         does the choice of prompts know the task?
        perdure run my.toml --dry-run             check everything, compute nothing
        perdure run digits/nsp2 data=photos tasks=B0-Inc5   your own images
        perdure run my.toml --import my_methods   a method of your own, in my_methods.py
        perdure run cifar100-10s/nsp2 devices=4   four GPUs of one machine
        perdure run digits/nsp2 digits/l2p --seeds 0,1,2 --ray   six runs at once, by Ray

        `perdure ls presets` lists the presets, `perdure show run` the keys of a run,
        `perdure show METHOD` those of a method.
    """
    from perdure.engine.config import load_config
    from perdure.engine.launch import rank_here

    check_jobs(args)
    presets, overrides = presets_and_overrides(args)
    overrides += ["skip_unreadable=true"] if args.skip_unreadable else []
    configs = [load_config(preset, overrides) for preset in presets]
    seeds = read_seeds(args.seeds, overrides)
    if args.ray is not None:
        return _run_on_ray(args, configs, seeds)
    config = configs[0]
    # A wrong word is refused before torch is imported.
    from perdure.engine.diagnose import check_diagnosable
    from perdure.experiment import default_folder

    out = Path(args.out) if args.out else default_folder(config)
    if args.diagnose:
        check_diagnosable(config)
    if rank_here(config.runtime):
        _share(args, config, seeds, out)
    elif args.dry_run:
        from perdure.cli.dry_run import make_plan, print_plan

        plan = make_plan(config, out, seeds, args.resume)
        print_json(plan) if args.json else print_plan(plan)
    else:
        _run_here(args, config, seeds, out)
    return 0


def presets_and_overrides(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Part the words of the command; there may be several presets where runs go to Ray."""
    more = [word for word in args.overrides if "=" not in word] if args.ray is not None else []
    return [args.what, *more], [word for word in args.overrides if word not in more]


def _share(args: argparse.Namespace, config: Config, seeds: Sequence[int], out: Path) -> None:
    """Take part in what rank 0 shows and writes."""
    from perdure import experiment

    if args.dry_run:
        return
    for folder, one in experiment.of_seeds(config, seeds, out).items():
        experiment.run(one, folder, resume=args.resume, diagnose=args.diagnose)


def _run_here(args: argparse.Namespace, config: Config, seeds: Sequence[int], out: Path) -> None:
    from perdure import experiment
    from perdure.cli.progress import open_display

    done: list[Finished] = []
    how = {"resume": args.resume, "diagnose": args.diagnose}
    for folder, one in experiment.of_seeds(config, seeds, out).items():
        label = f"seed {one.training.seed}" if seeds else ""
        with open_display(one, quiet=args.quiet, label=label) as display:
            done.append(experiment.run(one, folder, on_event=display, **how))
        if seeds and done[-1].already:
            messages().print(f"{label} is finished; its results are in {folder}.")
    if seeds:
        _summarise(args, done, out)
    else:
        _show_one(args, done[0])


def _show_one(args: argparse.Namespace, finished: Finished) -> None:
    from perdure.cli.results import print_results

    if finished.already:
        messages().print(f"This run is finished; its results are in {finished.folder}.")
    if args.json:
        print_json(_as_object(finished))
        return
    print_results(finished.entries)
    print(f"results  {finished.folder}")
    print(f"picture  {finished.folder / 'results.png'}")
    print(f"predict  perdure predict {finished.folder} IMAGE…")


def _run_on_ray(args: argparse.Namespace, configs: Sequence[Config], seeds: Sequence[int]) -> int:
    """Run every configuration with every seed in a process of its own; all that can be finished is."""
    if args.dry_run:
        raise UsageError("--dry-run checks one preset, and needs no --ray. Leave one out.")
    from perdure.engine.diagnose import check_diagnosable

    for config in configs if args.diagnose else ():
        check_diagnosable(config)
    from perdure.cluster.jobs import Resources, jobs_on_ray
    from perdure.cluster.runs import laid_out, run_all
    from perdure.experiment import check_folder, default_folder

    root = Path(args.out) if args.out else None
    runs = laid_out(configs, seeds, root)
    for folder, config in runs.items():
        check_folder(folder, config, args.resume)
    ended = 0

    def say(folder: Path, fault: str) -> None:
        nonlocal ended
        ended += 1
        if fault or not args.quiet:
            end = f"failed: {fault}" if fault else "finished"
            messages().print(printable(f"{ended} of {len(runs)}: {folder} {end}"))

    resources = Resources(args.cpus or 1, args.gpus)
    with jobs_on_ray(args.ray, resources, args.imports) as submit:
        done, faults = run_all(runs, submit, resume=args.resume, diagnose=args.diagnose, on_end=say)
    if not done:
        raise JobError(f"None of {counted(len(runs), 'run')} was finished.")
    if len(runs) == 1:
        _show_one(args, done[0])
    else:
        shared = default_folder(configs[0]) if len(configs) == 1 else Path("runs")
        _summarise(args, done, root or shared)
    return 1 if faults else 0


def _summarise(args: argparse.Namespace, done: Sequence[Finished], out: Path) -> None:
    """Write and print what runs have in common."""
    from perdure.reports.results.comparison import write_comparison
    from perdure.reports.tables.comparison import as_records, as_rich, compare

    entries = [entry for finished in done for entry in finished.entries]
    write_comparison(out, entries, "summary")
    rows = compare(entries)
    if args.json:
        runs = [_as_object(finished) for finished in done]
        print_json({"folder": str(out), "summary": as_records(rows), "runs": runs})
        return
    print_rich(as_rich(rows))
    print(f"summary  {out / 'summary.json'}")
    print(f"picture  {out / 'summary.png'}")
    print(f"predict  perdure predict {done[0].folder} IMAGE…")


def _as_object(finished: Finished) -> dict[str, Any]:
    return {
        "folder": str(finished.folder),
        "already_finished": finished.already,
        "picture": str(finished.folder / "results.png"),
        "model": str(finished.folder / "model"),
        "results": finished.entries,
    }
