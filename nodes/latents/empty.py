"""Empty latents as the start of sampling."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number, require_whole
from ...codi_backend.config import CoDiConfig
from ...codi_backend.modalities import MAX_CLIP_FRAMES, MAX_SECONDS, MAX_SIDE, latent_shape, modality, scale_factor
from ...codi_backend.sampling.noise import mean_latent
from ..runtime.latent_packing import STREAMS, from_backend, join, modality_of
from ..runtime.model import Model
from ..runtime.types import CATEGORY

MAX_BATCH = 256


def codi_config(model) -> CoDiConfig:
    """The configuration of a CoDi MODEL. `ValueError` for another model."""
    if not isinstance(model.model, Model):
        raise ValueError("model: this is not a CoDi model; connect the model of CoDi Load Model.")
    return model.model.codi_config


def stream_shape(config: CoDiConfig, name: str, width=0, height=0, frames=0, seconds=0.0) -> tuple[int, ...]:
    """The shape of one stream's latent in ComfyUI; 0 is the model's own size.

    Frames or seconds alone set the length of video and audio, see `codi_backend.modalities.lengths`.
    `ValueError` begins with the name of the input.
    """
    row = modality(name)
    network = config.diffuser.networks.get(row.network)
    autoencoder = getattr(config, f"{row.network}_autoencoder")
    if network is None or autoencoder is None or (name == "video" and not network.temporal):
        raise ValueError(
            f"model: {config.name!r} does not generate {name}; load one that does, or generate something else."
        )
    width, height = (require_whole(side, what, 0, MAX_SIDE) for side, what in ((width, "width"), (height, "height")))
    frames = require_whole(frames, "frames", 0, MAX_CLIP_FRAMES)
    seconds = require_number(seconds, "seconds", 0, MAX_SECONDS)
    size = (width or None, height or None)
    shape = latent_shape(config, name, image_size=size, frames=frames or None, seconds=seconds or None)
    return (*shape, 1, 1) if name == "text" else shape


def empty_latent(config: CoDiConfig, shapes: list[tuple[int, ...]], batch_size: int) -> dict:
    """A LATENT with one stream for each shape. It holds the mean of the model's latents, see `mean_latent`.

    Samplers add noise to it, so they start at the same latents as `codi generate`.
    """
    batch_size = require_whole(batch_size, "batch_size", 1, MAX_BATCH)
    return {"samples": join([_mean_stream(config, (batch_size, *shape)) for shape in shapes])}


def _mean_stream(config: CoDiConfig, shape: tuple[int, ...]) -> torch.Tensor:
    name = modality_of(shape, config).name
    mean = from_backend(mean_latent(config.diffuser.latent_means, name)[None], name) / scale_factor(config, name)
    return mean.to(comfy.model_management.intermediate_device()).expand(shape).contiguous()


def size_inputs(what: str) -> list[io.Input]:
    tooltip = f"{{}} of the {what} in pixels; 0 is the size of the model's training."
    return [
        io.Int.Input(side, default=0, min=0, max=MAX_SIDE, step=8, tooltip=tooltip.format(side.capitalize()))
        for side in ("width", "height")
    ]


def frames_input(own: str = "the number in the model's training") -> io.Input:
    return io.Int.Input(
        "frames", default=0, min=0, max=MAX_CLIP_FRAMES, tooltip=f"Number of frames of the video; 0 is {own}."
    )


def seconds_input(what: str = "the audio", own: str = "the length of the model's training") -> io.Input:
    return io.Float.Input(
        "seconds",
        default=0.0,
        min=0.0,
        max=MAX_SECONDS,
        step=0.01,
        tooltip=f"Length of {what}, rounded up to the model's step (0.32 s of audio for the built-in one); 0 is {own}.",
    )


def batch_input() -> io.Input:
    return io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip="Number of results to generate at once.")


class CoDiEmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEmptyLatent",
            display_name="CoDi Empty Latent",
            category=f"{CATEGORY}/latent",
            description="An empty latent with one stream for each modality to generate.",
            search_aliases=["joint latent", "nested latent", "empty latent image", "empty latent audio", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The CoDi model, which sets the shapes of the streams."),
                io.Boolean.Input("image", default=True, tooltip="Generate an image."),
                io.Boolean.Input("video", default=False, tooltip="Generate a video."),
                io.Boolean.Input("audio", default=True, tooltip="Generate audio."),
                io.Boolean.Input("text", default=False, tooltip="Generate a text."),
                *size_inputs("image and the video"),
                frames_input("the number that seconds sets, or else the number in the model's training"),
                seconds_input(
                    "the video and the audio",
                    "the length that frames sets, or else the length of the model's training. If both are set, they "
                    "must agree",
                ),
                batch_input(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The streams, for a sampler.")],
        )

    @classmethod
    def execute(cls, model, image, video, audio, text, width, height, frames, seconds, batch_size) -> io.NodeOutput:
        config = codi_config(model)
        chosen = {"image": image, "video": video, "audio": audio, "text": text}
        shapes = [stream_shape(config, name, width, height, frames, seconds) for name in STREAMS if chosen[name]]
        if not shapes:
            raise ValueError("image, video, audio, text: nothing is left to generate; switch at least one of them on.")
        return io.NodeOutput(empty_latent(config, shapes, batch_size))
