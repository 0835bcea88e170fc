"""Model files: the small models of this pack, and files in ``models/codi``."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...codi_backend.checkpoints.files import SHIPPED

FOLDER = "codi"
_BUILT_IN = {f"{name} (built in)": name for name in SHIPPED}
BUILT_IN, *_ = _BUILT_IN


def register_model_folder() -> None:
    """Register ``models/codi``, in addition to its folders in extra_model_paths.yaml."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    paths, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    folder_paths.folder_names_and_paths[FOLDER] = (
        list(dict.fromkeys([*paths, default])),
        set(extensions) | folder_paths.supported_pt_extensions,
    )


def model_choices() -> list[str]:
    """Built-in models, then subfolders of ``models/codi`` with checkpoint files (ending in a slash), then files."""
    files = folder_paths.get_filename_list(FOLDER)
    built_in = [name for name, model in _BUILT_IN.items() if any(SHIPPED[model].WEIGHTS.glob("*.safetensors"))]
    return [*built_in, *sorted({_folder(file) for file in files} - {"./"}), *files]


def _folder(file: str) -> str:
    return f"{Path(file).parent.as_posix()}/"


def locate(choice: str) -> str | list[str]:
    """The source for `read_parts` of an entry of `model_choices`. `ValueError` if it no longer exists."""
    if choice in _BUILT_IN:
        return _BUILT_IN[choice]
    if choice.endswith("/"):
        files = [file for file in folder_paths.get_filename_list(FOLDER) if _folder(file) == choice]
    else:
        files = [choice]
    paths = [folder_paths.get_full_path(FOLDER, file) for file in files]
    if not paths or None in paths:
        kind = "folder" if choice.endswith("/") else "file"
        raise ValueError(f"checkpoint: there is no {kind} {choice!r} in models/{FOLDER}; press R to refresh the list.")
    return paths


def fingerprint(choice: str) -> str:
    """A string that changes with the files of a choice, so that the loader runs again."""
    source = locate(choice)
    if isinstance(source, str):
        return source
    statuses = [os.stat(path) for path in source]
    return " ".join(f"{path}:{s.st_mtime_ns}:{s.st_size}" for path, s in zip(source, statuses))
