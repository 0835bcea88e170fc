"""Coupler files: the built-in one, and files in ``models/codi_couplers``."""

from __future__ import annotations

import os

import folder_paths

from ...codi_backend.presets import mini

FOLDER = "codi_couplers"
BUILT_IN = "mini (built in)"
SUFFIX = ".safetensors"


def register_coupler_folder() -> None:
    """Register ``models/codi_couplers``, in addition to its folders in extra_model_paths.yaml."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    paths, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    folder_paths.folder_names_and_paths[FOLDER] = (list(dict.fromkeys([*paths, default])), {*extensions, SUFFIX})


def save_folder() -> str:
    """The folder of models in which couplers are saved."""
    return folder_paths.get_folder_paths(FOLDER)[0]


def coupler_choices() -> list[str]:
    """The built-in coupler, then the files of ``models/codi_couplers``."""
    return [BUILT_IN, *folder_paths.get_filename_list(FOLDER)]


def locate(choice: str) -> str:
    """The path of an entry of `coupler_choices`. `ValueError` if it no longer exists."""
    path = str(mini.COUPLER) if choice == BUILT_IN else folder_paths.get_full_path(FOLDER, choice)
    if path is None or not os.path.isfile(path):
        raise ValueError(f"coupler: there is no {choice!r} in models/{FOLDER}; put it there and press R.")
    return path
