"""Empty latents to start sampling from."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ..codi_backend.config import AudioAutoencoderConfig, CoDiConfig, ImageAutoencoderConfig, UNetConfig
from ..codi_backend.diffuser.temporal import MAX_FRAMES
from ..codi_backend.diffusion import mean_latent
from ..codi_backend.modality import modality
from .model import Model
from .streams import STREAMS, from_backend, join, modality_of, scale_factor
from .types import CATEGORY

MAX_SIZE = 4096
MAX_SECONDS = 600.0
MAX_BATCH = 256


def codi_config(model) -> CoDiConfig:
    """The configuration of a MODEL. `ValueError` when it is not one of CoDi's."""
    if not isinstance(model.model, Model):
        raise ValueError("model: this is not a CoDi model; connect the model of CoDi Load Model.")
    return model.model.codi_config


def _halvings(network: UNetConfig) -> int:
    """The extent of a latent must be a multiple of this, for the U-Net to meet itself on the way up."""
    return 2 ** (len(network.channel_mult) - 1)


def _downscale(autoencoder: ImageAutoencoderConfig | AudioAutoencoderConfig) -> int:
    return autoencoder.patch * 2 ** (len(autoencoder.channels) - 1)


def _require(config: CoDiConfig, name: str, autoencoder: object) -> UNetConfig:
    network = config.diffuser.networks.get(modality(name).network)
    if network is None or autoencoder is None or (name == "video" and not network.temporal):
        raise ValueError(
            f"model: {config.name!r} does not generate {name}; load one that does, or generate something else."
        )
    return network


def image_shape(config: CoDiConfig, width: int, height: int, name: str = "image") -> tuple[int, int, int]:
    """Channels, height and width of an image latent; 0 pixels stand for the model's own size."""
    autoencoder = config.image_autoencoder
    network = _require(config, name, autoencoder)
    downscale = _downscale(autoencoder)
    multiple = downscale * _halvings(network)
    for side, pixels in (("width", width), ("height", height)):
        if pixels % multiple or not 0 <= pixels <= MAX_SIZE:
            raise ValueError(
                f"{side}: {pixels} pixels do not fit the model {config.name!r}; "
                f"choose a multiple of {multiple} up to {MAX_SIZE}, or 0 for its own {autoencoder.image_size}."
            )
    height, width = ((pixels or autoencoder.image_size) // downscale for pixels in (height, width))
    return network.in_channels, height, width


def video_shape(config: CoDiConfig, width: int, height: int, frames: int) -> tuple[int, int, int, int]:
    """Channels, frames, height and width of a video latent; 0 stands for the model's own size and number of frames."""
    channels, *size = image_shape(config, width, height, "video")
    own = config.image_autoencoder.frames
    if not 0 <= frames <= MAX_FRAMES:
        raise ValueError(
            f"frames: {frames} frames are out of range; choose 1 to {MAX_FRAMES}, or 0 for the model's own {own}."
        )
    return channels, frames or own, *size


def audio_shape(config: CoDiConfig, seconds: float) -> tuple[int, int, int]:
    """Channels, time steps and bands of a sound's latent; 0 seconds stand for the model's own duration."""
    autoencoder = config.audio_autoencoder
    network = _require(config, "audio", autoencoder)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(
            f"seconds: {seconds} s is out of range; choose up to {MAX_SECONDS:g} s, "
            f"or 0 for the model's own {autoencoder.seconds} s."
        )
    mel, halvings = autoencoder.mel, _halvings(network)
    downscale = _downscale(autoencoder)
    unit = mel.hop * downscale * halvings
    units = max(1, round((seconds or autoencoder.seconds) * mel.sample_rate / unit))
    return network.in_channels, units * halvings, mel.bands // downscale


def text_shape(config: CoDiConfig) -> tuple[int, int, int]:
    """A text's latent as ComfyUI has it."""
    return _require(config, "text", config.text_autoencoder).in_channels, 1, 1


def stream_shape(config: CoDiConfig, name: str, width=0, height=0, frames=0, seconds=0.0) -> tuple[int, ...]:
    """The shape of one stream's latent, of which the sizes matter that the modality has."""
    if name == "image":
        return image_shape(config, width, height)
    if name == "video":
        return video_shape(config, width, height, frames)
    return audio_shape(config, seconds) if name == "audio" else text_shape(config)


def empty_latent(config: CoDiConfig, shapes: list[tuple[int, ...]], batch_size: int) -> dict:
    """A LATENT with a stream for each shape, which is what the model's latents are on average.

    Samplers add noise to it, and so begin where `codi generate` does: see `mean_latent`.
    """
    return {"samples": join([_mean_stream(config, (batch_size, *shape)) for shape in shapes])}


def _mean_stream(config: CoDiConfig, shape: tuple[int, ...]) -> torch.Tensor:
    name = modality_of(shape, config).name
    mean = from_backend(mean_latent(config.diffuser.latent_means, name)[None], name) / scale_factor(name, config)
    return mean.to(comfy.model_management.intermediate_device()).expand(shape).contiguous()


def size_inputs(what: str) -> list[io.Input]:
    tooltip = f"{{}} of the {what} in pixels; 0 is the size that the model was trained on."
    return [
        io.Int.Input(side, default=0, min=0, max=MAX_SIZE, step=8, tooltip=tooltip.format(side.capitalize()))
        for side in ("width", "height")
    ]


def frames_input() -> io.Input:
    return io.Int.Input(
        "frames",
        default=0,
        min=0,
        max=MAX_FRAMES,
        tooltip="How many frames the video has; 0 is the number that the model was trained on.",
    )


def seconds_input() -> io.Input:
    return io.Float.Input(
        "seconds",
        default=0.0,
        min=0.0,
        max=MAX_SECONDS,
        step=0.01,
        tooltip="Length of the sound, rounded to the model's step (0.32 s for the built-in one); "
        "0 is the length that the model was trained on.",
    )


def batch_input() -> io.Input:
    return io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip="How many results to make at once.")


class CoDiEmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEmptyLatent",
            display_name="CoDi Empty Latent",
            category=f"{CATEGORY}/latent",
            description="An empty latent with one stream for everything that is to be generated together.",
            search_aliases=["joint latent", "nested latent", "empty latent image", "empty latent audio", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The CoDi model, which knows the shapes of its latents."),
                io.Boolean.Input("image", default=True, tooltip="Generate an image."),
                io.Boolean.Input("video", default=False, tooltip="Generate a video."),
                io.Boolean.Input("audio", default=True, tooltip="Generate a sound."),
                io.Boolean.Input("text", default=False, tooltip="Generate a text."),
                *size_inputs("image and the video"),
                frames_input(),
                seconds_input(),
                batch_input(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The streams, ready for a sampler.")],
        )

    @classmethod
    def execute(cls, model, image, video, audio, text, width, height, frames, seconds, batch_size) -> io.NodeOutput:
        config = codi_config(model)
        chosen = {"image": image, "video": video, "audio": audio, "text": text}
        shapes = [stream_shape(config, name, width, height, frames, seconds) for name in STREAMS if chosen[name]]
        if not shapes:
            raise ValueError("image, video, audio, text: nothing is left to generate; switch at least one of them on.")
        return io.NodeOutput(empty_latent(config, shapes, batch_size))
