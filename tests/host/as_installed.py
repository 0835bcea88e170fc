"""Load a copy of the pack with nothing importable but what the requirements bring, and run a workflow with it.

torchaudio is hidden, too: newer ComfyUI does not require it.

python as_installed.py COMFYUI PACK DIRECTORY writes DIRECTORY/result.json.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from host.comfy_host import InProcess
from host.workflow_files import api_form


def required(*files: Path) -> set[str]:
    """Names of all distributions that requirements files bring, directly or not."""
    names, waiting = set(), [line for file in files for line in file.read_text().splitlines()]
    while waiting:
        try:
            requirement = Requirement(waiting.pop().partition(";")[0].partition(" #")[0])
        except InvalidRequirement:  # a blank line or a comment
            continue
        name = canonicalize_name(requirement.name)
        if name not in names:
            names.add(name)
            try:
                waiting += [line for line in requires(name) or [] if "extra ==" not in line]
            except PackageNotFoundError:  # for another platform
                pass
    return names


class OnlyRequired:
    """Finds modules as Python does, but for those of other distributions than the allowed ones."""

    def __init__(self, allowed: set[str]):
        self.hidden = {
            module
            for module, distributions in packages_distributions().items()
            if not allowed & {canonicalize_name(name) for name in distributions}
        }

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            return None
        return PathFinder.find_spec(name, path, target)

    find_distributions = staticmethod(PathFinder.find_distributions)


class Measured(InProcess):
    """ComfyUI that watches what importing the pack takes.

    Attributes
    ----------
    seconds : float
        Processor time, which other processes do not lengthen.
    imported : list of str
        Top-level modules that were imported with the pack.
    """

    async def _load_pack(self) -> bool:
        before, start = set(sys.modules), time.process_time()
        loaded = await super()._load_pack()
        self.seconds = time.process_time() - start
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        self.imported = sorted(name for name in names if Path(name) != self._pack.parent / self._pack.name)
        return loaded


def main(comfyui: Path, pack: Path, directory: Path) -> None:
    allowed = required(comfyui / "requirements.txt", pack / "requirements.txt") - {"torchaudio"}
    only = OnlyRequired(allowed)
    # Without the finders of editable installations, of which this repository may be one.
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, only]
    host = Measured(comfyui, directory, pack)
    prompt = api_form("Text to image and sound")
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 1
    outputs = host.run(prompt)
    result = {
        "hidden": sorted(only.hidden),
        "nodes": sorted(host.pack_nodes),
        "seconds": host.seconds,
        "imported": host.imported,
        "outputs": sorted(kind for output in outputs.values() for kind in output),
    }
    (directory / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
