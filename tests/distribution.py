"""What the registry distributes of this repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def distributed_files() -> list[str] | None:
    """Paths of the files that `comfy node pack` takes, once all are committed; None outside a git checkout."""
    if not (REPOSITORY / ".git").exists():
        return None
    files = _git_files("--exclude-standard")
    return sorted(files - _git_files("--ignored", "--exclude-from=.comfyignore"))


def _git_files(*selection: str) -> set[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", *selection]
    listing = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {name for name in listing.split("\0") if (REPOSITORY / name).is_file()}
