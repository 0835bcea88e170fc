"""Similarity of prompts and outputs."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..runtime.conditioning_inputs import one_prompt
from ..runtime.growing_inputs import growing
from ..runtime.media_inputs import audio_samples, image_pixels, video_pixels
from ..runtime.required_inputs import require_prompt_encoders
from ..runtime.types import CATEGORY, PromptEncodersType

MAX_PROMPTS = 10


class CoDiSimilarity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSimilarity",
            display_name="CoDi Similarity",
            category=f"{CATEGORY}/evaluation",
            description="Shows the cosine similarity of prompts and outputs, each with each. Outputs are encoded by "
            "the prompt encoders; batches are compared sample by sample and averaged.",
            search_aliases=["clip score", "clap score", "cosine", "compare", "evaluate", "heat map", "codi"],
            is_input_list=True,
            inputs=[
                PromptEncodersType.Input("prompt_encoders", tooltip="The prompt encoders from CoDi Load Model."),
                growing(
                    "prompts",
                    io.Conditioning.Input("prompt", tooltip="A prompt to compare with the rest."),
                    MAX_PROMPTS,
                    "Any number of prompts, from the nodes CoDi Prompt and CoDi Interpolate Prompts.",
                ),
                io.Image.Input("image", optional=True, tooltip="Images, such as those from CoDi Decode Image."),
                io.MultiType.Input(
                    "video",
                    [io.Video, io.Image],
                    optional=True,
                    tooltip="Videos, or the frames of each, such as those from CoDi Decode Video.",
                ),
                io.Audio.Input("audio", optional=True, tooltip="Audio, such as that from CoDi Decode Audio."),
                io.String.Input(
                    "text", optional=True, force_input=True, tooltip="Texts, such as those from CoDi Decode Text."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="matrix",
                    tooltip="The cosine similarities of the embeddings. Red is similar (1), blue dissimilar.",
                ),
                io.String.Output(display_name="table", tooltip="The same numbers as text."),
            ],
        )

    @classmethod
    def execute(cls, prompt_encoders, prompts=None, image=None, video=None, audio=None, text=None) -> io.NodeOutput:
        # Imported when needed: the judges of evaluations come with it.
        from ...codi_backend.evaluation.heat_map import heat_map
        from ...codi_backend.evaluation.similarity import compare

        (encoders,) = prompt_encoders
        encoders = require_prompt_encoders(encoders)
        embeddings = {
            name.replace("_", " "): torch.cat([_embedding(conditioning) for conditioning in conditionings])
            for name, conditionings in (prompts or {}).items()
        }
        # A list counts as one batch.
        if image:
            encoder = encoders.need("image")
            embeddings["image"] = torch.cat([encoder.encode(image_pixels(one, "image")) for one in image])
        if video:
            encoder = encoders.need("image")
            embeddings["video"] = torch.cat([encoder.encode_video(video_pixels(one)) for one in video])
        if audio:
            encoder = encoders.need("audio")
            embeddings["audio"] = torch.cat([encoder.encode(*audio_samples(one)) for one in audio])
        if text:
            embeddings["text"] = encoders.need("text").encode(text)
        _check_comparable(embeddings)
        result = compare(embeddings)
        matrix = np.asarray(heat_map({"": result}), np.float32) / 255
        return io.NodeOutput(torch.from_numpy(matrix)[None], str(result))


def _embedding(conditioning) -> Tensor:
    """The embedding ``[B, 1, D]`` of a CONDITIONING."""
    embedding, _ = one_prompt(conditioning, "prompts", "connect them one by one instead")
    if embedding.shape[1] != 1:
        raise ValueError(
            f"prompts: this conditioning of shape {list(embedding.shape)} is not one of CoDi's; "
            "connect one from the nodes CoDi Prompt or CoDi Interpolate Prompts."
        )
    return embedding


def _check_comparable(embeddings: dict[str, Tensor]) -> None:
    if len(embeddings) < 2:
        raise ValueError(
            "prompts, image, video, audio, text: there is nothing to compare; connect at least two of them, "
            "or two prompts."
        )
    first, reference = max(embeddings.items(), key=lambda item: len(item[1]))
    for label, embedding in embeddings.items():
        if embedding.shape[-1] != reference.shape[-1]:
            raise ValueError(
                f"prompts: {first} has {reference.shape[-1]} numbers and {label} {embedding.shape[-1]}; "
                "connect prompts and prompt encoders of one checkpoint."
            )
        if len(embedding) not in (1, len(reference)):
            raise ValueError(
                f"{label}: {len(embedding)} cannot be compared with {len(reference)} of {first}; "
                "connect batches of one size, or single ones."
            )
