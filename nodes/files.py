"""Where models come from: the small one inside this pack, and files in ``models/codi``."""

from __future__ import annotations

import os

import folder_paths

FOLDER = "codi"
BUILT_IN = "mini (built in)"


def register_model_folder() -> None:
    """Make ``models/codi`` known, beside the folders that extra_model_paths.yaml may already have given for it."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    paths, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    folder_paths.folder_names_and_paths[FOLDER] = (
        list(dict.fromkeys([*paths, default])),
        set(extensions) | folder_paths.supported_pt_extensions,
    )


def model_choices() -> list[str]:
    return [BUILT_IN, *folder_paths.get_filename_list(FOLDER)]


def locate(choice: str) -> str | list[str]:
    """What `read_parts` takes, for an entry of `model_choices`."""
    if choice == BUILT_IN:
        return "mini"
    path = folder_paths.get_full_path(FOLDER, choice)
    if path is None:
        raise ValueError(f"checkpoint: there is no file {choice!r} in models/{FOLDER}; press R to refresh the list.")
    return [path]


def fingerprint(choice: str) -> str:
    """Changes when the file behind a choice does, so that the loader runs again."""
    source = locate(choice)
    if isinstance(source, str):
        return source
    status = os.stat(source[0])
    return f"{source[0]}:{status.st_mtime_ns}:{status.st_size}"
