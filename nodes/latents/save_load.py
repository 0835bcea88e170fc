"""Joint latents to files and from files."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.cli_args
from comfy_api.latest import io

from ..runtime.latent_files import SUFFIX, read_latent, write_latent
from ..runtime.latent_packing import samples_of
from ..runtime.types import CATEGORY
from ..runtime.user_files import file_choices, file_fingerprint, locate_file, place_to_save

FOLDER = "latents"


def latent_choices() -> list[str]:
    """Latents of the input folder, and those saved to the folder `FOLDER` of the output folder."""
    return file_choices(FOLDER, SUFFIX)


class CoDiSaveJointLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSaveJointLatent",
            display_name="CoDi Save Joint Latent",
            category=f"{CATEGORY}/latent",
            description="Saves a latent of any streams and models to ComfyUI's output folder: with masks, names of "
            "streams, extra keys and the workflow.",
            search_aliases=["save latent", "export latent", "joint latent", "nested latent", "safetensors", "codi"],
            is_output_node=True,
            inputs=[
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/joint",
                    tooltip=f"Path in the output folder. CoDi Load Joint Latent lists the files in {FOLDER}.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same latent.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, samples, filename_prefix) -> io.NodeOutput:
        samples_of(samples)
        path, saved = place_to_save(filename_prefix, SUFFIX)
        metadata = {}
        if not comfy.cli_args.args.disable_metadata:
            metadata = {"prompt": json.dumps(cls.hidden.prompt) if cls.hidden.prompt is not None else ""}
            metadata |= {key: json.dumps(value) for key, value in (cls.hidden.extra_pnginfo or {}).items()}
        write_latent(Path(path), samples, metadata)
        return io.NodeOutput(samples, ui={"latents": [saved]})


class CoDiLoadJointLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLoadJointLatent",
            display_name="CoDi Load Joint Latent",
            category=f"{CATEGORY}/latent",
            description="Loads a latent that CoDi Save Joint Latent or the stock Save Latent saved.",
            search_aliases=["load latent", "import latent", "joint latent", "nested latent", "safetensors", "codi"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=latent_choices(),
                    tooltip=f"A {SUFFIX} file in ComfyUI's input folder, or in {FOLDER} of the output folder.",
                )
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent with its masks and extra keys.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return file_fingerprint(file)

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        path = Path(locate_file(file))
        try:
            return io.NodeOutput(read_latent(path))
        except ValueError as error:
            raise ValueError(f"file: {error}") from error
