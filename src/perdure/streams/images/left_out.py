"""What a search for images leaves out: numbers and examples, by reason."""

from __future__ import annotations

from pathlib import Path

from perdure.wording import counted, listed

REASONS = {
    "loose": ("image beside the class folders", "images beside the class folders"),
    "unnamed": (
        "image whose name has no ending of one",
        "images whose names have no ending of one",
    ),
    "dangling": ("link that leads nowhere", "links that lead nowhere"),
    "beside": ("folder beside train and test", "folders beside train and test"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "other": ("other file", "other files"),
}
"""Why something is left out, in the order in which it is told: one of it, several."""
_LITTER = {"__MACOSX", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", ".ipynb_checkpoints"}
_EXAMPLES = 3


def is_litter(name: str) -> bool:
    """Tell whether a system or program left a file or folder there that is of no interest."""
    return name in _LITTER or name.startswith(("._", ".DS_Store", ".directory", ".perdure-"))


class LeftOut:
    """Files and folders that a search left out.

    Attributes:
        paths: by reason, one of `REASONS`.
        litter: how many files and folders of the system were left out, of which nobody is told.
        root: the folder that was searched, where whoever asked named an archive of it.
    """

    def __init__(self) -> None:
        self.root: Path | None = None
        self.paths: dict[str, list[Path]] = {reason: [] for reason in REASONS}
        self.litter = 0

    def add(self, reason: str, path: Path) -> None:
        """Note a file or folder, unless it is litter."""
        if is_litter(path.name):
            self.litter += 1
        else:
            self.paths[reason].append(path)

    def __bool__(self) -> bool:
        return any(self.paths.values())

    def told(self, root: Path, place: str | Path | None = None) -> str:
        """Say what was left out of a folder, with numbers and examples; empty for nothing.

        Args:
            root: the folder that paths are shown from.
            place: what was named, where that is an archive of it; the folder by default.
        """
        parts = []
        for reason, (one, many) in REASONS.items():
            paths = sorted(self.paths[reason])
            names = [
                str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths
            ]
            if names:
                parts.append(f"{counted(len(names), one, many)} ({listed(names, _EXAMPLES)})")
        return f"left out of '{place or root}': {'; '.join(parts)}" if parts else ""
