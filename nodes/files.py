"""Where models come from: the small ones inside this pack, and files in ``models/codi``."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..codi_backend.checkpoint_files import SHIPPED

FOLDER = "codi"
_BUILT_IN = {f"{name} (built in)": name for name in SHIPPED}
BUILT_IN, *_ = _BUILT_IN


def register_model_folder() -> None:
    """Make ``models/codi`` known, beside the folders that extra_model_paths.yaml may already have given for it."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    paths, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    folder_paths.folder_names_and_paths[FOLDER] = (
        list(dict.fromkeys([*paths, default])),
        set(extensions) | folder_paths.supported_pt_extensions,
    )


def model_choices() -> list[str]:
    """Built-in models, subfolders of ``models/codi`` that hold checkpoint files (with a slash at the end), files."""
    files = folder_paths.get_filename_list(FOLDER)
    built_in = [name for name, model in _BUILT_IN.items() if any(SHIPPED[model].WEIGHTS.glob("*.safetensors"))]
    return [*built_in, *sorted({_folder(file) for file in files} - {"./"}), *files]


def _folder(file: str) -> str:
    return f"{Path(file).parent.as_posix()}/"


def locate(choice: str) -> str | list[str]:
    """What `read_parts` takes, for an entry of `model_choices`. `ValueError` when it is not there any more."""
    if choice in _BUILT_IN:
        return _BUILT_IN[choice]
    if choice.endswith("/"):
        files = [
            file for file in folder_paths.get_filename_list(FOLDER) if f"{Path(file).parent.as_posix()}/" == choice
        ]
    else:
        files = [choice]
    paths = [folder_paths.get_full_path(FOLDER, file) for file in files]
    if not paths or None in paths:
        kind = "folder" if choice.endswith("/") else "file"
        raise ValueError(f"checkpoint: there is no {kind} {choice!r} in models/{FOLDER}; press R to refresh the list.")
    return paths


def fingerprint(choice: str) -> str:
    """Changes when the files behind a choice do, so that the loader runs again."""
    source = locate(choice)
    if isinstance(source, str):
        return source
    statuses = [os.stat(path) for path in source]
    return " ".join(f"{path}:{s.st_mtime_ns}:{s.st_size}" for path, s in zip(source, statuses))
