"""Couplers from files, from models, and to files."""

from __future__ import annotations

import os

import folder_paths
import torch
from comfy_api.latest import io

from ...codi_backend.checkpoints.coupler_file import load_coupler, save_coupler, training_record
from ...codi_backend.models.coupler import Coupler
from ..latents.empty import codi_config
from ..runtime.coupler_files import BUILT_IN, FOLDER, SUFFIX, coupler_choices, locate, save_folder
from ..runtime.coupler_model import CouplerModel
from ..runtime.types import CATEGORY, CouplerType

MODELS, OUTPUT = f"models/{FOLDER}", "output"


class CoDiLoadCoupler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLoadCoupler",
            display_name="CoDi Load Coupler",
            category=f"{CATEGORY}/coupling",
            description="Loads a coupler, which makes models agree that know nothing of each other.",
            search_aliases=["coupler", "critic", "joint generation", "loader", "codi"],
            inputs=[
                io.Combo.Input(
                    "coupler",
                    options=coupler_choices(),
                    default=BUILT_IN,
                    tooltip=f"The one for the latents of the built-in CoDi, or a file in models/{FOLDER}.",
                )
            ],
            outputs=[CouplerType.Output(display_name="coupler", tooltip="For CoDi Couple Guiders.")],
        )

    @classmethod
    def fingerprint_inputs(cls, coupler):
        status = os.stat(locate(coupler))
        return f"{status.st_mtime_ns}:{status.st_size}"

    @classmethod
    def execute(cls, coupler) -> io.NodeOutput:
        path = locate(coupler)
        try:
            with torch.inference_mode(False):  # or nothing could be differentiated
                loaded = load_coupler(path)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"coupler: {error}") from error
        return io.NodeOutput(CouplerModel(loaded, training_record(path)))


class CoDiCouplerFromModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiCouplerFromModel",
            display_name="CoDi Coupler From Model",
            category=f"{CATEGORY}/coupling",
            description="The environment encoders of a CoDi model as a coupler of models that share its latents.",
            search_aliases=["coupler", "environment encoder", "latent alignment", "codi"],
            inputs=[io.Model.Input("model", tooltip="A CoDi model with the networks of all streams to couple.")],
            outputs=[CouplerType.Output(display_name="coupler", tooltip="For CoDi Couple Guiders.")],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        codi_config(model)  # raises for another model
        return io.NodeOutput(CouplerModel.from_codi(model))


class CoDiSaveCoupler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSaveCoupler",
            display_name="CoDi Save Coupler",
            category=f"{CATEGORY}/coupling",
            description="Saves a trained coupler as one .safetensors file.",
            search_aliases=["coupler", "export", "safetensors", "codi"],
            is_output_node=True,
            inputs=[
                CouplerType.Input("coupler", tooltip="A coupler from CoDi Train Coupler."),
                io.String.Input("filename_prefix", default="coupler", tooltip="Name of the file; it gets a number."),
                io.Combo.Input(
                    "folder",
                    options=[MODELS, OUTPUT],
                    default=MODELS,
                    tooltip=f"Where it is saved. CoDi Load Coupler lists the files in {MODELS}; press R to refresh.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, coupler, filename_prefix, folder) -> io.NodeOutput:
        if not isinstance(coupler, CouplerModel) or not isinstance(coupler.coupler, Coupler):
            raise ValueError(
                "coupler: this is no trained coupler, and a model's environment encoders are in the model's own file; "
                "connect CoDi Train Coupler."
            )
        if folder not in (MODELS, OUTPUT):
            raise ValueError(f"folder: {folder!r} is neither {MODELS} nor {OUTPUT}; choose one of them.")
        root = save_folder() if folder == MODELS else folder_paths.get_output_directory()
        inside = folder_paths.is_within_directory(root, os.path.join(root, filename_prefix))
        if not inside or not filename_prefix.strip():
            raise ValueError(f"filename_prefix: {filename_prefix!r} names no file within {folder}; give a name.")
        os.makedirs(root, exist_ok=True)
        directory, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, root)
        file = f"{name}_{counter:05}_{SUFFIX}"
        save_coupler(os.path.join(directory, file), coupler.coupler, coupler.record)
        return io.NodeOutput(ui={"couplers": [{"filename": file, "subfolder": subfolder, "type": folder}]})
