"""CoDi's prompts as CLIP vision outputs, for core models that take an image embedding."""

from __future__ import annotations

import comfy.clip_vision
import torch
from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.checks.inputs import MAX_EMBEDDING
from ...codi_backend.checks.numbers import require_finite
from ..runtime.conditioning_inputs import one_prompt
from ..runtime.types import CATEGORY


class CoDiPromptToClipVisionOutput(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiPromptToClipVisionOutput",
            display_name="CoDi Prompt to CLIP Vision Output",
            category=f"{CATEGORY}/conditioning",
            description="Experimental: a prompt of any modality as the image embedding of SD 2.1 unCLIP-L and Stable "
            "Cascade. Needs prompt encoders in the space of CLIP ViT-L/14, as CoDi's published ones.",
            search_aliases=["unclip", "stable cascade", "image embedding", "audio to image", "clip vision", "codi"],
            is_experimental=True,
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="A prompt: text, image, video, audio or a mixture. One embedding of 768 numbers.",
                ),
                io.ClipVisionOutput.Input(
                    "reference",
                    tooltip="Any image, encoded with the CLIP vision model of the checkpoint that will use the prompt. "
                    "The output has the norm of its embedding.",
                ),
            ],
            outputs=[
                io.ClipVisionOutput.Output(
                    display_name="clip_vision_output",
                    tooltip="The image embedding, without tokens. Connect it to unCLIPConditioning.",
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning, reference) -> io.NodeOutput:
        tokens, _ = one_prompt(conditioning, "conditioning", "connect them one by one")
        if tokens.shape[1] != 1:
            raise ValueError(
                f"conditioning: this has {tokens.shape[1]} tokens and is no single embedding; connect a CoDi prompt."
            )
        norm, width = _norm_and_width(reference)
        if tokens.shape[2] != width:
            raise ValueError(
                f"conditioning: a prompt of width {tokens.shape[2]} does not fit reference, which has width {width}; "
                "load a CoDi checkpoint with CLIP ViT-L/14, of width 768, and a reference of it."
            )
        embedding = tokens[:, 0].float()
        if not embedding.norm(dim=-1).all():
            raise ValueError("conditioning: an embedding of zeros has no direction; connect another prompt.")
        output = comfy.clip_vision.Output()
        output.image_embeds = norm * torch.nn.functional.normalize(embedding, dim=-1)
        return io.NodeOutput(output)


def _norm_and_width(reference) -> tuple[Tensor, int]:
    """The mean norm and the width of the image embeddings ``[B, D]`` of a CLIP_VISION_OUTPUT.

    comfy.clip_vision does not normalize them, and the models were trained so; CoDi's prompts have norm 1.
    """
    embedding = getattr(reference, "image_embeds", None)
    if not isinstance(embedding, Tensor) or embedding.ndim != 2:
        raise ValueError(
            "reference: there is no image embedding in this; connect CLIP Vision Encode with a CLIP model."
        )
    require_finite(embedding, "reference: its image embedding", "encode the image again", MAX_EMBEDDING)
    norm = embedding.float().norm(dim=-1).mean()
    if norm == 0:
        raise ValueError("reference: its image embedding is 0; encode another image.")
    return norm.cpu(), embedding.shape[1]
