"""Latents to what people see, hear and read."""

from __future__ import annotations

from fractions import Fraction

from comfy_api.latest import InputImpl, Types, io

from ..codi_backend.checks import require_number
from .media_inputs import audio_samples
from .streams import find, samples_of
from .types import CATEGORY, AudioVaeType, TextVaeType

MIN_FRAME_RATE, MAX_FRAME_RATE = 0.01, 120.0


def _image_latent(samples, vae, name: str):
    if vae is None:
        raise ValueError("vae: the loaded checkpoint has no image autoencoder; load one that has, or another VAE.")
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
            description="Decodes the video stream of a latent, and puts a sound to it.",
            search_aliases=["vae decode", "latent to video", "create video", "mux audio", "frames", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with a video stream, alone or among others."),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model; frames are images to it."),
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=MAX_FRAME_RATE,
                    step=0.01,
                    tooltip="Frames per second; 0 is the rate that the model was trained on.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound of the video: one for each clip of the batch, or one for all. "
                    "What is longer than the clip is cut off when it is saved.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    is_output_list=True,
                    tooltip="The clips of the batch, with their sound: a list, of which Save Video saves each.",
                ),
                io.Image.Output(
                    display_name="frames", is_output_list=True, tooltip="The frames of each clip, in the same order."
                ),
            ],
        )

    @classmethod
    def execute(cls, samples, vae, frame_rate, audio=None) -> io.NodeOutput:
        latent = _image_latent(samples, vae, "video").movedim(2, 1)
        batch, frames = latent.shape[:2]
        rate = _frame_rate(frame_rate, vae)
        sounds = [None] * batch if audio is None else _sounds(audio, batch)
        clips = list(vae.decode(latent.flatten(0, 1)).unflatten(0, (batch, frames)))
        videos = [
            InputImpl.VideoFromComponents(Types.VideoComponents(images=clip, audio=sound, frame_rate=rate))
            for clip, sound in zip(clips, sounds)
        ]
        return io.NodeOutput(videos, clips)


def _frame_rate(frame_rate: float, vae) -> Fraction:
    if frame_rate != 0:
        frame_rate = require_number(frame_rate, "frame_rate", MIN_FRAME_RATE, MAX_FRAME_RATE)
    frame_rate = frame_rate or getattr(vae, "frame_rate", 0.0)
    if not frame_rate:
        raise ValueError("frame_rate: this VAE does not say how fast its videos run; choose the frames per second.")
    return Fraction(frame_rate).limit_denominator(1000)  # which is as exact as video files are


def _sounds(audio, batch: int) -> list[dict]:
    """An AUDIO for each of so many clips."""
    waveform, rate = audio_samples(audio)
    if len(waveform) not in (1, batch):
        raise ValueError(
            f"audio: {len(waveform)} sounds do not go with {batch} clips; connect one sound, or one for each clip."
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
            outputs=[io.Audio.Output(tooltip="The sounds of the batch, mono.")],
        )

    @classmethod
    def execute(cls, samples, audio_vae) -> io.NodeOutput:
        if audio_vae is None:
            raise ValueError("audio_vae: the loaded checkpoint has no audio autoencoder; load one that has.")
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
                    tooltip="The texts of the batch: a list, of which Preview as Text shows each.",
                )
            ],
        )

    @classmethod
    def execute(cls, samples, text_vae) -> io.NodeOutput:
        if text_vae is None:
            raise ValueError("text_vae: the loaded checkpoint has no text autoencoder; load one that has.")
        return io.NodeOutput(text_vae.decode(find(samples_of(samples), "text", text_vae.config.latent_dim)))
