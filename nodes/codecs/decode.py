"""Decoders of latents to image, video, audio and text."""

from __future__ import annotations

from fractions import Fraction

from comfy_api.latest import InputImpl, Types, io

from ...codi_backend.checks.numbers import require_number
from ..runtime.latent_packing import find, samples_of
from ..runtime.media_inputs import audio_samples
from ..runtime.required_inputs import require_autoencoder
from ..runtime.types import CATEGORY, AudioVaeType, TextVaeType

MIN_FRAME_RATE, MAX_FRAME_RATE = 0.01, 120.0


def _image_latent(samples, vae, name: str):
    require_autoencoder(vae, "vae", "image")
    return find(samples_of(samples), name, vae.latent_channels)


class CoDiDecodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeImage",
            display_name="CoDi Decode Image",
            category=f"{CATEGORY}/decode",
            description="Decodes the image stream of a latent.",
            search_aliases=["vae decode", "latent to image", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with an image stream, alone or among others."),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model."),
            ],
            outputs=[io.Image.Output(tooltip="The images of the batch.")],
        )

    @classmethod
    def execute(cls, samples, vae) -> io.NodeOutput:
        latent = _image_latent(samples, vae, "image")
        return io.NodeOutput(vae.decode(latent))


class CoDiDecodeVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeVideo",
            display_name="CoDi Decode Video",
            category=f"{CATEGORY}/decode",
            description="Decodes the video stream of a latent and adds an audio track.",
            search_aliases=["vae decode", "latent to video", "create video", "mux audio", "frames", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with a video stream, alone or among others."),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model; it decodes each frame as an image."),
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=MAX_FRAME_RATE,
                    step=0.01,
                    tooltip="Frames per second; 0 is the frame rate of the model's training.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The audio track: one for each video of the batch, or one for all. A track longer than the "
                    "video is cut when the video is saved.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    is_output_list=True,
                    tooltip="The videos of the batch with their audio, as a list; Save Video saves each.",
                ),
                io.Image.Output(
                    display_name="frames", is_output_list=True, tooltip="The frames of each video, in the same order."
                ),
            ],
        )

    @classmethod
    def execute(cls, samples, vae, frame_rate, audio=None) -> io.NodeOutput:
        latent = _image_latent(samples, vae, "video").movedim(2, 1)
        batch, frames = latent.shape[:2]
        rate = _frame_rate(frame_rate, vae)
        tracks = [None] * batch if audio is None else _tracks(audio, batch)
        images = list(vae.decode(latent.flatten(0, 1)).unflatten(0, (batch, frames)))
        videos = [
            InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=track, frame_rate=rate))
            for frames, track in zip(images, tracks)
        ]
        return io.NodeOutput(videos, images)


def _frame_rate(frame_rate: float, vae) -> Fraction:
    if frame_rate != 0:
        frame_rate = require_number(frame_rate, "frame_rate", MIN_FRAME_RATE, MAX_FRAME_RATE)
    frame_rate = frame_rate or getattr(vae, "frame_rate", 0.0)
    if not frame_rate:
        raise ValueError("frame_rate: this VAE has no frame rate of its own; choose the frames per second.")
    return Fraction(frame_rate).limit_denominator(1000)  # the precision of video files


def _tracks(audio, batch: int) -> list[dict]:
    """An AUDIO for each video of a batch."""
    waveform, rate = audio_samples(audio)
    if len(waveform) not in (1, batch):
        raise ValueError(
            f"audio: a batch of {len(waveform)} does not match {batch} videos; connect one, or one for each video."
        )
    return [{"waveform": one[None], "sample_rate": rate} for one in waveform.expand(batch, -1, -1)]


class CoDiDecodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeAudio",
            display_name="CoDi Decode Audio",
            category=f"{CATEGORY}/decode",
            description="Decodes the audio stream of a latent.",
            search_aliases=["vae decode audio", "latent to audio", "vocoder", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with an audio stream, alone or among others."),
                AudioVaeType.Input("audio_vae", tooltip="The audio VAE from CoDi Load Model."),
            ],
            outputs=[io.Audio.Output(tooltip="The audio of the batch, mono.")],
        )

    @classmethod
    def execute(cls, samples, audio_vae) -> io.NodeOutput:
        require_autoencoder(audio_vae, "audio_vae", "audio")
        latent = find(samples_of(samples), "audio", audio_vae.config.latent_channels)
        return io.NodeOutput({"waveform": audio_vae.decode(latent), "sample_rate": audio_vae.sample_rate})


class CoDiDecodeText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeText",
            display_name="CoDi Decode Text",
            category=f"{CATEGORY}/decode",
            description="Decodes the text stream of a latent.",
            search_aliases=["latent to text", "latent to string", "caption", "optimus", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with a text stream, alone or among others."),
                TextVaeType.Input("text_vae", tooltip="The text VAE from CoDi Load Model."),
            ],
            outputs=[
                io.String.Output(
                    display_name="text",
                    is_output_list=True,
                    tooltip="The texts of the batch, as a list; Preview as Text shows each.",
                )
            ],
        )

    @classmethod
    def execute(cls, samples, text_vae) -> io.NodeOutput:
        require_autoencoder(text_vae, "text_vae", "text")
        return io.NodeOutput(text_vae.decode(find(samples_of(samples), "text", text_vae.config.latent_dim)))
