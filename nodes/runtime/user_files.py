"""Files that nodes save to ComfyUI's output folder, and load from there or from its input folder."""

from __future__ import annotations

import os

import folder_paths


def file_choices(folder: str, suffixes: str | tuple[str, ...]) -> list[str]:
    """Files with these endings of the input folder, and of `folder` within the output folder."""
    inputs, _ = folder_paths.recursive_search(folder_paths.get_input_directory())
    saved, _ = folder_paths.recursive_search(os.path.join(folder_paths.get_output_directory(), folder))
    files = [*sorted(inputs), *(f"{folder}/{file} [output]" for file in sorted(saved))]
    return [file for file in files if file.removesuffix(" [output]").lower().endswith(suffixes)]


def locate_file(choice: str) -> str:
    """Path of a choice. `ValueError` about the node's input `file` if there is none."""
    if not folder_paths.exists_annotated_filepath(choice):
        raise ValueError(f"file: there is no {choice!r} in ComfyUI's input folder; put it there and press R.")
    return folder_paths.get_annotated_filepath(choice)


def file_fingerprint(choice: str) -> str:
    """Changes when the file does."""
    status = os.stat(locate_file(choice))
    return f"{status.st_mtime_ns}:{status.st_size}"


def place_to_save(filename_prefix: str, suffix: str) -> tuple[str, dict[str, str]]:
    """Path of a new file in the output folder, and its entry for ``ui``.

    `ValueError` about the node's input `filename_prefix` if it does not name a file there.
    """
    output = folder_paths.get_output_directory()
    inside = folder_paths.is_within_directory(output, os.path.join(output, filename_prefix))
    if not inside or not filename_prefix.strip():
        raise ValueError(f"filename_prefix: {filename_prefix!r} names no file within the output folder; give a name.")
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output)
    file = f"{name}_{counter:05}_{suffix}"
    return os.path.join(folder, file), {"filename": file, "subfolder": subfolder, "type": "output"}
