"""The published system that files belong to, by the names of their tensors.

Each system is a module with the same functions and tables: `codi` and `versatile` (Versatile Diffusion).
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from ..config import CoDiConfig
from . import codi as published
from . import versatile as published_versatile

SYSTEMS = (published, published_versatile)


def holds_published(keys: Iterable[str]) -> bool:
    """Whether any of these names occurs in published files."""
    return any(system.part_of(key) for key in keys for system in SYSTEMS)


def system_of(files: Iterable[tuple[str, Iterable[str]]]) -> ModuleType:
    """Determine the system that published files belong to together.

    Both systems share the names of the autoencoders and, except for CoDi's temporal layers, of CLIP. A file with only
    shared names is assigned by the other files.

    Parameters
    ----------
    files : iterable of (str, iterable of str)
        File names, and the names of the tensors in each.

    Raises
    ------
    ValueError
        If the files mix both systems, or both layouts of Versatile Diffusion.
    """
    marks: dict[str, tuple[ModuleType, str]] = {}
    shared = False
    for name, keys in files:
        for key in keys:
            if published.OWN.match(key):
                marks.setdefault(published.SYSTEM, (published, name))
            elif layout := published_versatile.layout_of(key):
                marks.setdefault(f"{published_versatile.SYSTEM} in its {layout} layout", (published_versatile, name))
            elif published_versatile.part_of(key) and not published.part_of(key):
                marks.setdefault(published_versatile.SYSTEM, (published_versatile, name))
            elif key.startswith(("clip.", "model.diffusion_model.unet_")):
                shared = True
    layouts = {what: mark for what, mark in marks.items() if what != published_versatile.SYSTEM}
    clash = layouts if len(layouts) > 1 else marks
    if len(layouts) > 1 or len({system.SYSTEM for system, _ in marks.values()}) > 1:
        what = " and ".join(f"{name} of {what}" for what, (_, name) in clash.items())
        raise ValueError(f"The files are of different kinds, {what}: load files of one kind together.")
    if marks:
        return next(iter(marks.values()))[0]
    # Shared layers, and none that only CoDi has.
    return published_versatile if shared else published


def system_by_config(config: CoDiConfig) -> ModuleType:
    """The published system of a configuration."""
    return published_versatile if config.diffuser.contexts else published


def system_by_edition(edition: str) -> ModuleType | None:
    """The published system of a `Checkpoint.edition`; None for files of this pack."""
    if edition.startswith(published_versatile.EDITION):
        return published_versatile
    return published if edition.startswith(published.EDITION) else None
