"""Prompt embeddings from files, to files, and from tensors of other nodes."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...codi_backend.conditioning.embedding_file import SUFFIXES, as_embedding, read_embedding, write_embedding
from ..runtime.conditioning_inputs import one_prompt
from ..runtime.types import CATEGORY
from ..runtime.user_files import file_choices, file_fingerprint, locate_file, place_to_save

FOLDER = "codi_embeddings"


def embedding_choices() -> list[str]:
    """Embedding files of the input folder, and those saved to the output folder."""
    return file_choices(FOLDER, SUFFIXES)


class CoDiLoadEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLoadEmbedding",
            display_name="CoDi Load Embedding",
            category=f"{CATEGORY}/prompts",
            description="Loads a prompt embedding from a file, such as one saved by CoDi Save Embedding.",
            search_aliases=["embedding", "load conditioning", "safetensors", "npy", "codi"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=embedding_choices(),
                    tooltip="A .safetensors, .npy or .pt file in ComfyUI's input folder with a tensor of shape [D], "
                    "[B, D] or [B, L, D], where D is the width of the model's prompts; or a saved embedding.",
                )
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompt.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return file_fingerprint(file)

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        path = locate_file(file)
        try:
            embedding = read_embedding(path)
        except ValueError as error:
            raise ValueError(f"file: {error}") from error
        return io.NodeOutput([[embedding, {}]])


class CoDiSaveEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSaveEmbedding",
            display_name="CoDi Save Embedding",
            category=f"{CATEGORY}/prompts",
            description="Saves the embedding of a prompt to ComfyUI's output folder.",
            search_aliases=["embedding", "save conditioning", "safetensors", "export", "codi"],
            is_output_node=True,
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="A prompt, such as the positive of a CoDi Prompt node."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/prompt",
                    tooltip=f"Path in the output folder. CoDi Load Embedding lists the files in {FOLDER}.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, conditioning, filename_prefix) -> io.NodeOutput:
        embedding, _ = one_prompt(conditioning, "conditioning", "save them one by one")
        path, saved = place_to_save(filename_prefix, ".safetensors")
        write_embedding(path, embedding)
        return io.NodeOutput(ui={"embeddings": [saved]})


class CoDiEmbeddingFromTensor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEmbeddingFromTensor",
            display_name="CoDi Embedding From Tensor",
            category=f"{CATEGORY}/prompts",
            description="Makes a prompt of a tensor from another node, such as CLIP Vision Encode.",
            search_aliases=["embedding", "clip vision", "tensor", "unclip", "codi"],
            inputs=[
                io.AnyType.Input(
                    "tensor",
                    tooltip="A CLIP Vision output, whose image embedding is used, or a tensor of shape [D], [B, D] or "
                    "[B, L, D], where D is the width of the model's prompts.",
                ),
                io.Boolean.Input(
                    "normalize", default=True, tooltip="Scale every embedding to norm 1, as CoDi's encoders do."
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompt.")],
        )

    @classmethod
    def execute(cls, tensor, normalize) -> io.NodeOutput:
        try:
            embedding = as_embedding(getattr(tensor, "image_embeds", tensor))
        except ValueError as error:
            raise ValueError(f"tensor: {error}") from error
        if normalize:
            if not embedding.norm(dim=-1).all():
                raise ValueError(
                    "tensor: an embedding of zeros has no direction; connect another, or do not normalize."
                )
            embedding = torch.nn.functional.normalize(embedding, dim=-1)
        return io.NodeOutput([[embedding.cpu(), {}]])
